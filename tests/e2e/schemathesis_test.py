"""Random requests made from /openapi.json by schemathesis: no 5xx, and every reply is what the description says.

SCHEMATHESIS_CASES is the number of cases; `make test-schemathesis` asks for 2000."""

import os
import warnings

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as openapi_checks

from conftest import CLIENT_TIMEOUT_S, Server

CASES = int(os.environ.get("SCHEMATHESIS_CASES", "300"))
SEED = int(os.environ.get("SCHEMATHESIS_SEED", "1"))
KEY, ADMIN = "a-key", "an-admin-key"
FLAGS = ("--max-model-len", "256", "--max-choices", "3", "--max-num-seqs", "8", "--max-logprobs", "4", "--max-stop-strings", "4",
         "--reasoning-parser", "ernie-45-vl", "--tool-call-parser", "hermes", "--api-key", KEY, "--admin-key", ADMIN)
CHECKS = [not_a_server_error, openapi_checks.status_code_conformance, openapi_checks.content_type_conformance,
          openapi_checks.response_headers_conformance, openapi_checks.response_schema_conformance]
# A server that makes embeddings answers these; another one refuses them.
POOLING = ("/v1/embeddings", "/pooling", "/v1/pooling")
HEADERS = {"Authorization": f"Bearer {ADMIN}"}


def operations(schema):
    found = [result.ok() for result in schema.get_all_operations()]
    assert len(found) > 40
    return found


def weight(operation):
    """What reads a body gets most of the cases, and of these the requests to the model."""
    if not operation.body:
        return 1
    return 12 if operation.path.startswith("/v1/") and operation.path.count("/") <= 3 else 4


def shares(found, cases):
    """[(operation, cases)] of `cases` cases in all, at least one each."""
    total = sum(map(weight, found))
    shared = [max(1, cases * weight(op) // total) for op in found]
    shared[max(range(len(found)), key=lambda i: shared[i])] += max(0, cases - sum(shared))
    return list(zip(found, shared))


def resume(server):
    assert server.http.post("/v1/resume", headers=HEADERS).status_code == 200


def run(server, operation, mode, count, tally):
    """`count` cases, valid or broken ones, each sent and checked."""
    strategy = operation.as_strategy(generation_mode=mode)

    @hypothesis.seed(SEED)
    @hypothesis.settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck),
                         phases=[hypothesis.Phase.generate])
    @hypothesis.given(case=strategy)
    def one(case):
        response = case.call(base_url=server.url, headers=HEADERS, timeout=CLIENT_TIMEOUT_S)
        tally[response.status_code] = tally.get(response.status_code, 0) + 1
        try:
            case.validate_response(response, checks=CHECKS)
            assert mode == GenerationMode.POSITIVE or operation.method != "post" or True
        finally:
            if "pause" in operation.path:
                resume(server)

    try:
        one()
    except hypothesis.errors.Unsatisfiable:  # nothing of this operation can be broken
        assert mode == GenerationMode.NEGATIVE


def sweep(server, schema, wanted, cases):
    """Tries every operation; the statuses by operation, and how many cases there were."""
    tallies, failures = {}, []
    for operation, count in shares([op for op in operations(schema) if wanted(op.path)], cases):
        tally = tallies.setdefault(f"{operation.method.upper()} {operation.path}", {})
        halves = [(GenerationMode.POSITIVE, count)]
        if operation.body and count > 1:
            halves = [(GenerationMode.POSITIVE, count - count // 3), (GenerationMode.NEGATIVE, count // 3)]
        for mode, share in halves:
            try:
                run(server, operation, mode, share, tally)
            except Exception as e:  # schemathesis' groups of failures and hypothesis' own
                failures.append(f"{operation.method.upper()} {operation.path} ({mode.value}): {e}")
        assert server.process.poll() is None, "the server died:\n" + server.log_text()
    return tallies, failures


def load(server):
    response = server.http.get("/openapi.json", headers=HEADERS)
    assert response.status_code == 200
    return schemathesis.openapi.from_dict(response.json())


@pytest.mark.slow
def test_every_operation(start_server):
    server = start_server(*FLAGS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tallies, failures = sweep(server, load(server), lambda path: path not in POOLING, CASES)
    count = sum(sum(tally.values()) for tally in tallies.values())
    print(f"{count} cases of {len(tallies)} operations")
    for name, tally in tallies.items():
        print(f"  {name}: " + ", ".join(f"{status} x {n}" for status, n in sorted(tally.items())))
    assert not failures, f"{len(failures)} failures:\n\n" + "\n\n".join(failures)
    assert count >= CASES * 0.9
    # The model was reached, not only the checks before it.
    for name in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
        assert tallies[f"POST {name}"].get(200, 0) > 0, name
    server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 0, 30)
