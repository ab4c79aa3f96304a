"""Reasoning parsers and the thinking budget."""

import json

import openai
import pytest

from conftest import ask, BASE_FLAGS, thinking, without_cached

QUESTION = "Compute 45 + 11."
STORY = "Tell a story about Li Wei in Paris, a orange green and a cactus."


def chat(server, text=STORY, on=True, **body):
    reply = server.http.post("/v1/chat/completions", json={"messages": ask(text), "temperature": 0, **thinking(on), **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def stream(server, text=STORY, on=True, **body):
    """(reasoning, content, finish reason, usage) put together from the chunks."""
    reasoning, content, finish, usage = "", "", None, None
    body = {"messages": ask(text), "temperature": 0, "stream": True, "stream_options": {"include_usage": True}, **thinking(on), **body}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            usage = chunk["usage"] or usage
            for choice in chunk["choices"]:
                reasoning += choice["delta"].get("reasoning_content") or ""
                content += choice["delta"].get("content") or ""
                finish = choice["finish_reason"] or finish
    return reasoning, content, finish, without_cached(usage)


def parts(reply):
    choice = reply["choices"][0]
    message = choice["message"]
    return message["reasoning_content"] or "", message["content"] or "", choice["finish_reason"], without_cached(reply["usage"])


REQUESTS = [dict(text=text, on=on, max_tokens=max_tokens, **extra)
            for text in (QUESTION, STORY) for on in (False, True) for max_tokens in (1, 5, 60)
            for extra in ({}, {"reasoning_max_tokens": 1}, {"reasoning_max_tokens": 3}, {"stop": ["e"]}, {"n": 1, "ignore_eos": True})]


def test_streaming_is_the_same(server):
    for request in REQUESTS:
        assert parts(chat(server, **request)) == stream(server, **request), request


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_budget_ends_the_thought(server, budget):
    free = chat(server, QUESTION, return_token_ids=True)
    ids = free["choices"][0]["message"]["completion_token_ids"]
    end = server.http.post("/v1/chat/completions", json={"messages": ask(QUESTION), "max_tokens": 2, "temperature": 0,
                                                         "reasoning_max_tokens": 1, "return_token_ids": True, **thinking(True)})
    think_end = end.json()["choices"][0]["message"]["completion_token_ids"][1]
    assert ids.index(think_end) > budget, "the model would think longer"
    reply = chat(server, QUESTION, reasoning_max_tokens=budget, return_token_ids=True)
    limited = reply["choices"][0]["message"]["completion_token_ids"]
    assert limited[:budget] == ids[:budget] and limited[budget] == think_end
    assert limited.count(think_end) == 1
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == budget + 1
    assert reply["choices"][0]["message"]["content"].strip()
    # metadata is the field's old place; the field comes first.
    assert parts(chat(server, QUESTION, metadata={"reasoning_max_tokens": budget})) == parts(reply)
    assert parts(chat(server, QUESTION, metadata={"reasoning_max_tokens": 9}, reasoning_max_tokens=budget)) == parts(reply)


def test_a_budget_that_is_not_used_up_changes_nothing(server):
    free = parts(chat(server, QUESTION))
    used = free[3]["completion_tokens_details"]["reasoning_tokens"]
    assert parts(chat(server, QUESTION, reasoning_max_tokens=used)) == free
    assert parts(chat(server, QUESTION, reasoning_max_tokens=used - 1)) == free, "the last one is </think> either way"
    assert parts(chat(server, QUESTION, on=False, reasoning_max_tokens=1)) == parts(chat(server, QUESTION, on=False))


@pytest.mark.parametrize("budget, word", [(0, "at least 1"), (-1, "at least 1"), (1.5, "1.5"), ("x", "string")])
def test_budget_errors(server, budget, word):
    with pytest.raises(openai.BadRequestError) as caught:
        server.client.chat.completions.create(model="default", messages=ask(QUESTION), extra_body={"reasoning_max_tokens": budget})
    assert caught.value.param == "reasoning_max_tokens" and word in str(caught.value)


def test_reasoning_tokens(server):
    usage = chat(server, QUESTION)["usage"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]
    assert chat(server, QUESTION, on=False)["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
    cut = chat(server, QUESTION, max_tokens=1)["usage"]
    assert cut["completion_tokens_details"]["reasoning_tokens"] == cut["completion_tokens"] == 1


def without(flag):
    flags = list(BASE_FLAGS)
    at = flags.index(flag)
    return flags[:at] + flags[at + 2:]


@pytest.mark.parametrize("parser", ["ernie-45-vl-thinking", "ernie-x1", "qwen3"])
def test_other_parsers(server, start_server, parser):
    other = start_server(*without("--reasoning-parser"), "--reasoning-parser", parser)
    for on in (False, True):
        mine, theirs = parts(chat(server, QUESTION, on)), parts(chat(other, QUESTION, on))
        assert mine[0] == theirs[0] and mine[1].strip() == theirs[1].strip()
        assert parts(chat(other, QUESTION, on)) == stream(other, QUESTION, on)


def test_no_parser(start_server):
    server = start_server(*without("--reasoning-parser"))
    message = chat(server, QUESTION)["choices"][0]["message"]
    assert message["reasoning_content"] is None and "</think>" in message["content"]
    refused = server.http.post("/v1/chat/completions", json={"messages": ask(QUESTION), "reasoning_max_tokens": 5})
    assert refused.status_code == 400 and "--reasoning-parser" in refused.json()["error"]["message"]


def test_text_that_ends_a_thought(start_server, monkeypatch):
    monkeypatch.setenv("FD_LIMIT_THINKING_CONTENT_TRUNCATE_STR", "\\n</think>\\n\\n")
    server = start_server(*BASE_FLAGS)
    reply = parts(chat(server, QUESTION, reasoning_max_tokens=2))
    assert reply[0].endswith("\n") and reply[1].startswith("\n\n")
    assert reply == stream(server, QUESTION, reasoning_max_tokens=2)
