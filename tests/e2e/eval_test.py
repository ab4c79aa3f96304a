"""tests/eval through HTTP: 168 questions (all but the video task), at two concurrencies and three token budgets."""

import concurrent.futures
import json

import pytest

from conftest import BASE_FLAGS, Server, questions, thinking

RIGHT_AT_LEAST = 166
EXACT_AT_LEAST = 165
BUDGETS = (64, 384, 4096)

_replies = {}  # (budget, concurrency) -> replies by question


def ask_all(server, concurrency):
    """[(text as in tests/eval `reply`, completion tokens, prompt tokens)] in the order of the questions."""
    def ask(question):
        fields = {"tools": question["tools"]} if question.get("tools") else {}
        reply = server.http.post("/v1/chat/completions", json={
            "messages": question["messages"], "temperature": 0, "max_tokens": 256, **thinking(question["enable_thinking"]), **fields})
        assert reply.status_code == 200, (question["id"], reply.text)
        reply = reply.json()
        message = reply["choices"][0]["message"]
        reasoning = message.get("reasoning_content")
        text = (reasoning + "</think>" if reasoning is not None else "") + (message["content"] or "")
        return text, reply["usage"]["completion_tokens"], reply["usage"]["prompt_tokens"]

    if concurrency == 1:
        return [ask(q) for q in questions()]
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(ask, questions()))


def replies_of(budget, concurrency):
    if (budget, concurrency) not in _replies:
        flags = list(BASE_FLAGS)
        flags[flags.index("--max-num-batched-tokens") + 1] = str(budget)
        server = Server(*flags)
        try:
            _replies[budget, concurrency] = ask_all(server, concurrency)
            server.wait_idle(2)
        finally:
            assert server.stop() == 0, server.log_text()
    return _replies[budget, concurrency]


def is_right(question, text):
    """The answer after the reasoning says what tests/eval expects."""
    answer = text.split("</think>")[-1].strip()
    try:
        return json.loads(answer) == json.loads(question["answer"])
    except ValueError:
        return answer == question["answer"].strip()


def check(budget, concurrency):
    replies = replies_of(budget, concurrency)
    asked = questions()
    assert len(asked) == len(replies) == 168
    wrong = [q["id"] for q, (text, _, _) in zip(asked, replies) if not is_right(q, text)]
    # The reference tokens decode to `reply`, end token aside; equal text and equal count are equal tokens.
    inexact = [(q["id"], text) for q, (text, count, _) in zip(asked, replies)
               if text != q["reply"] or count != len(q["reference_ids"])]
    prompts = [q["id"] for q, (_, _, count) in zip(asked, replies) if count != q["prompt_tokens"]]
    print(f"budget {budget}, concurrency {concurrency}: {168 - len(wrong)} right, {168 - len(inexact)} token-exact of 168")
    assert not prompts, f"other prompt lengths than transformers': {prompts}"
    assert 168 - len(wrong) >= RIGHT_AT_LEAST, wrong
    assert 168 - len(inexact) >= EXACT_AT_LEAST, inexact


def test_eval_384_at_16():
    check(384, 16)


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("budget", BUDGETS)
def test_eval(budget, concurrency):
    check(budget, concurrency)
    # Batch and chunks must not change a single token.
    assert replies_of(budget, concurrency) == replies_of(384, 16)
