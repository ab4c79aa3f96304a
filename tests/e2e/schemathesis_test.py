"""Random requests made from /openapi.json by schemathesis: no 5xx, and every reply is what the description says.

SCHEMATHESIS_CASES is the number of cases; `make test-schemathesis` asks for 2000."""

import os
import traceback
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
FLAGS = ("--max-model-len", "128", "--max-choices", "3", "--max-num-seqs", "8", "--max-logprobs", "4", "--max-stop-strings", "4",
         "--reasoning-parser", "ernie-45-vl", "--tool-call-parser", "hermes", "--api-key", KEY, "--admin-key", ADMIN)
CHECKS = [not_a_server_error, openapi_checks.status_code_conformance, openapi_checks.content_type_conformance,
          openapi_checks.response_headers_conformance, openapi_checks.response_schema_conformance]
# What the description forbids is refused.
REFUSES = [openapi_checks.negative_data_rejection]
# A server that makes embeddings answers these; another one refuses them.
POOLING = ("/v1/embeddings", "/pooling", "/v1/pooling")
HEADERS = {"Authorization": f"Bearer {ADMIN}"}


def operations(schema):
    found = [result.ok() for result in schema.get_all_operations()]
    assert len(found) > 40
    return found


def weight(operation):
    """What reads a body gets the cases, and of these the requests to the model most; what has no parameters is one case."""
    if not operation.body:
        return 2 if operation.path_parameters else 0
    return 12 if operation.path.startswith("/v1/") and operation.path.count("/") <= 3 else 4


def shares(found, cases):
    """[(operation, cases)] of at least `cases` cases in all: a twentieth more, since some cases come up twice and count once."""
    total = sum(map(weight, found))
    return [(op, 1 + cases * 21 // 20 * weight(op) // max(total, 1)) for op in found]


def resume(server):
    assert server.http.post("/v1/resume", headers=HEADERS).status_code == 200


def needed(spec, operation):
    """Names of the fields that a body must have, or one of which it must have."""
    body = spec["paths"][operation.path][operation.method].get("requestBody")
    if not body:
        return set()
    schema = spec["components"]["schemas"][body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    return {name for part in [schema, *schema.get("anyOf", [])] for name in part.get("required", [])}


def thin(case, keep, random):
    """The case with a few of its optional fields: with all of them nearly every request contradicts itself somewhere."""
    if not isinstance(case.body, dict):
        return
    optional = sorted(set(case.body) - keep)
    for name in random.sample(optional, max(0, len(optional) - random.randint(0, 4))):
        del case.body[name]


def run(server, operation, mode, keep, count, tally):
    """`count` cases, valid or broken ones, each sent and checked. keep: the fields that are not thinned out; None leaves all."""
    strategy = operation.as_strategy(generation_mode=mode)

    @hypothesis.seed(SEED)
    @hypothesis.settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck),
                         phases=[hypothesis.Phase.generate])
    @hypothesis.given(case=strategy, random=hypothesis.strategies.randoms(use_true_random=False))
    def one(case, random):
        if keep is not None:
            thin(case, keep, random)
        response = case.call(base_url=server.url, headers=HEADERS, timeout=CLIENT_TIMEOUT_S)
        tally[response.status_code] = tally.get(response.status_code, 0) + 1
        try:
            case.validate_response(response, checks=CHECKS + (REFUSES if mode == GenerationMode.NEGATIVE else []))
        finally:
            if "pause" in operation.path:
                resume(server)

    try:
        one()
    except hypothesis.errors.Unsatisfiable:  # nothing of this operation can be broken
        assert mode == GenerationMode.NEGATIVE


def sweep(server, spec, wanted, cases):
    """Tries every operation; the statuses by operation, and how many cases there were."""
    tallies, failures = {}, []
    for operation, count in shares([op for op in operations(schemathesis.openapi.from_dict(spec)) if wanted(op.path)], cases):
        tally = tallies.setdefault(f"{operation.method.upper()} {operation.path}", {})
        ways = [(GenerationMode.POSITIVE, None, count)]
        if operation.body and count >= 4:
            ways = [(GenerationMode.POSITIVE, None, count // 4), (GenerationMode.NEGATIVE, None, count // 4),
                    (GenerationMode.POSITIVE, needed(spec, operation), count - 2 * (count // 4))]
        for mode, keep, share in ways:
            try:
                run(server, operation, mode, keep, share, tally)
            except (Exception, BaseExceptionGroup) as e:  # schemathesis' failures come in groups
                failures.append(f"{operation.method.upper()} {operation.path} ({mode.value}):\n" + "".join(traceback.format_exception_only(e)))
        assert server.process.poll() is None, "the server died:\n" + server.log_text()
    return tallies, failures


def load(server):
    response = server.http.get("/openapi.json", headers=HEADERS)
    assert response.status_code == 200
    return response.json()


def check(server, cases, wanted, reached):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tallies, failures = sweep(server, load(server), wanted, cases)
    count = sum(sum(tally.values()) for tally in tallies.values())
    print(f"{count} cases of {len(tallies)} operations")
    for name, tally in tallies.items():
        print(f"  {name}: " + ", ".join(f"{status} x {n}" for status, n in sorted(tally.items())))
    assert not failures, f"{len(failures)} failures:\n\n" + "\n\n".join(failures)
    assert count >= cases
    for name in reached:  # the work itself, not only the checks before it
        assert tallies[f"POST {name}"].get(200, 0) > 0, name
    server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 0, 30)


@pytest.mark.slow
def test_every_operation(start_server):
    check(start_server(*FLAGS), CASES, lambda path: True,
          ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize", "/detokenize"))


@pytest.mark.slow
def test_a_server_that_embeds(start_server):
    check(start_server("--runner", "pooling", *FLAGS), max(CASES // 10, 30), lambda path: path in POOLING, ("/v1/embeddings", "/pooling"))
