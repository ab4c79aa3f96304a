"""tests/eval through HTTP: all 176 questions, at two concurrencies and three token budgets."""

import concurrent.futures

import pytest

from conftest import BASE_FLAGS, Server
from eval_set import EXACT_AT_LEAST, RIGHT_AT_LEAST, questions, read_reply, request_body, score

BUDGETS = (64, 384, 4096)

# (--quantization, --quantize-lm-head)
QUANTIZATIONS = (("wint8", "none"), ("wint4", "none"), ("wint4", "wint4"), ('{"quantization": "wint4", "group_size": 32}', "none"))

KV_TYPES = ("fp8", "int8")

_replies = {}  # (budget, concurrency, quantization, head, kv) -> replies by question


def ask_all(server, concurrency):
    """[(text as in tests/eval `reply`, completion tokens, prompt tokens)] in the order of the questions."""
    def ask(question):
        reply = server.http.post("/v1/chat/completions", json=request_body(question))
        assert reply.status_code == 200, (question["id"], reply.text)
        return read_reply(reply.json())

    if concurrency == 1:
        return [ask(q) for q in questions()]
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(ask, questions()))


def replies_of(budget, concurrency, quantization="none", head="none", kv="auto"):
    key = (budget, concurrency, quantization, head, kv)
    if key not in _replies:
        flags = [*BASE_FLAGS, "--quantization", quantization, "--quantize-lm-head", head, "--kv-cache-dtype", kv]
        flags[flags.index("--max-num-batched-tokens") + 1] = str(budget)
        server = Server(*flags)
        try:
            _replies[key] = ask_all(server, concurrency)
            server.wait_idle(2)
        finally:
            assert server.stop() == 0, server.log_text()
    return _replies[key]


def check(budget, concurrency, quantization="none", head="none", kv="auto"):
    replies = replies_of(budget, concurrency, quantization, head, kv)
    asked = questions()
    assert len(asked) == len(replies) == 176
    wrong, inexact, prompts = score(asked, replies)
    print(f"budget {budget}, concurrency {concurrency}, quantization {quantization}, head {head}, kv {kv}: {176 - len(wrong)} right, {176 - len(inexact)} token-exact of 176")
    assert not prompts, f"other prompt lengths than transformers': {prompts}"
    assert 176 - len(wrong) >= RIGHT_AT_LEAST, wrong
    assert 176 - len(inexact) >= EXACT_AT_LEAST, inexact


def test_eval_384_at_16():
    check(384, 16)


@pytest.mark.slow
@pytest.mark.parametrize("quantization, head", QUANTIZATIONS)
def test_eval_quantised(quantization, head):
    check(384, 16, quantization, head)
    # A quantised row does not depend on its company either.
    assert replies_of(4096, 1, quantization, head) == replies_of(384, 16, quantization, head)


@pytest.mark.slow
@pytest.mark.parametrize("kv", KV_TYPES)
def test_eval_kv_types(kv):
    check(384, 16, kv=kv)
    # A token's bytes and scale do not depend on the chunk that it came in.
    assert replies_of(4096, 1, kv=kv) == replies_of(384, 16, kv=kv)


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("budget", BUDGETS)
def test_eval(budget, concurrency):
    check(budget, concurrency)
    # Batch and chunks must not change a single token.
    assert replies_of(budget, concurrency) == replies_of(384, 16)
