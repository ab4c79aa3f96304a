"""A stream put together is the reply without a stream: stream_cases.py's table of 200 requests, each asked both ways."""

import json

import pytest

from conftest import BASE_FLAGS, Server
from stream_cases import CHAT, OTHER, PLAIN, table

TABLE = table()


def start(tool_parser, reasoning_parser):
    flags = list(BASE_FLAGS)
    flags[flags.index("--reasoning-parser") + 1] = reasoning_parser
    return Server(*flags, "--tool-call-parser", tool_parser)


@pytest.fixture(scope="module")
def servers():
    started = {PLAIN: start(PLAIN, "ernie-45-vl"), OTHER: start(OTHER, "ernie-45-vl-thinking")}
    yield started
    for server in started.values():
        server.wait_idle(10)
        assert server.stop() == 0, server.log_text()


def blank():
    return {"content": "", "reasoning": "", "calls": [], "logprobs": None, "ids": None, "prompt_ids": None, "finish": None}


def add_logprobs(choice, logprobs):
    """Of chats a list of tokens, of texts parallel lists."""
    if logprobs is None:
        return
    if choice["logprobs"] is None:
        choice["logprobs"] = {k: ([] if isinstance(v, list) else v) for k, v in logprobs.items()}
    for key, value in logprobs.items():
        if isinstance(value, list):
            choice["logprobs"][key] = choice["logprobs"][key] + value
        else:
            assert choice["logprobs"][key] == value is None


def counted(usage):
    """Without what the other way of asking may have left in a cache."""
    return {**usage, "prompt_tokens_details": {**usage["prompt_tokens_details"], "cached_tokens": None}}


def whole(server, path, body):
    response = server.http.post(path, json=body)
    assert response.status_code == 200, response.text
    reply = response.json()
    choices = []
    for i, given in enumerate(reply["choices"]):
        assert given["index"] == i
        choice = blank()
        says = given["message"] if path == CHAT else given
        choice["content"] = (says["content"] or "") if path == CHAT else says["text"]
        choice["reasoning"] = says.get("reasoning_content") or ""
        choice["calls"] = [(c["type"], c["function"]["name"], c["function"]["arguments"]) for c in says.get("tool_calls") or []]
        for _, _, arguments in choice["calls"]:
            json.loads(arguments)
        choice["ids"], choice["prompt_ids"] = says.get("completion_token_ids"), says.get("prompt_token_ids")
        choice["finish"] = given["finish_reason"]
        add_logprobs(choice, given["logprobs"])
        choices.append(choice)
    return reply["object"], choices, counted(reply["usage"])


def streamed(server, path, body, continuous):
    """The same of a stream, whose order of events is checked meanwhile."""
    choices, usage, objects, ids, done = {}, None, set(), set(), False
    body = {**body, "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": continuous}}
    with server.http.stream("POST", path, json=body) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if not line:
                continue
            assert line.startswith("data: ") and not done, line
            if line == "data: [DONE]":
                done = True
                continue
            chunk = json.loads(line[len("data: "):])
            assert "error" not in chunk, chunk
            objects.add(chunk["object"])
            ids.add(chunk["id"])
            if not chunk["choices"]:
                assert usage is None, "usage comes once"
                usage = chunk["usage"]
                continue
            assert usage is None and (chunk["usage"] is not None) == continuous
            (given,) = chunk["choices"]
            first = given["index"] not in choices
            choice = choices.setdefault(given["index"], blank())
            assert choice["finish"] is None, "nothing comes after the end of a choice"
            says = given["delta"] if path == CHAT else given
            assert path != CHAT or (says.get("role") == "assistant") == first
            choice["content"] += (says.get("content") or "") if path == CHAT else says["text"]
            choice["reasoning"] += says.get("reasoning_content") or ""
            for call in says.get("tool_calls") or []:
                if "id" in call:
                    assert call["index"] == len(choice["calls"]) and call["function"]["arguments"] == ""
                    choice["calls"].append((call["type"], call["function"]["name"], ""))
                else:
                    kind, name, arguments = choice["calls"][call["index"]]
                    choice["calls"][call["index"]] = kind, name, arguments + call["function"]["arguments"]
            if "completion_token_ids" in says:
                choice["ids"] = (choice["ids"] or []) + says["completion_token_ids"]
            if "prompt_token_ids" in says:
                assert choice["prompt_ids"] is None
                choice["prompt_ids"] = says["prompt_token_ids"]
            choice["finish"] = given["finish_reason"]
            add_logprobs(choice, given["logprobs"])
    assert done and len(ids) == 1
    (kind,) = objects
    return kind.removesuffix(".chunk"), [choices[i] for i in sorted(choices)], counted(usage)


def said(server, path, body):
    """The text that the request gives without its stops."""
    (choice,) = whole(server, path, {k: v for k, v in body.items() if k != "stop"})[1]
    return choice["content"]


def test_the_table_is_whole():
    assert len(TABLE) >= 200
    for part in ("chat", "noise", "thought", "stop", "text", "picture", "video", "tool"):
        assert sum(name.startswith(part) for name, *_ in TABLE) >= 4, part


@pytest.mark.parametrize("at", range(len(TABLE)), ids=[case[0] for case in TABLE])
def test_stream_equals_reply(servers, at):
    _, which, path, body = TABLE[at]
    server = servers[which]
    if any(callable(text) for text in body.get("stop", ())):
        answer = said(server, path, body)
        body = {**body, "stop": [text(answer) for text in body["stop"]]}
    reply = whole(server, path, body)
    assert streamed(server, path, body, continuous=at % 2 == 1) == reply
    for choice in reply[1]:
        assert bool(choice["ids"]) == bool(choice["prompt_ids"]) == body.get("return_token_ids", False)
        for text in [] if body.get("include_stop_str_in_output") else body.get("stop", []):
            assert text not in choice["content"]


def test_the_table_reaches_what_it_is_about(servers):
    """Calls, thoughts, broken characters and kept stops do occur; else their cases would say nothing."""
    def choice(name, **fields):
        _, which, path, body = next(case for case in TABLE if case[0] == name)
        return whole(servers[which], path, {**body, **fields})[1][0]

    assert all(choice(f"tool-{i}-{server}")["calls"] for i in (0,) for server in (PLAIN, OTHER))
    assert choice("thought-story-free-" + PLAIN)["reasoning"] and not choice("chat-sum-plain")["reasoning"]
    noise = [choice(f"noise-{seed}-plain")["content"] for seed in (1, 2)]
    assert any("\ufffd" in text for text in noise) and any(ord(c) > 127 and c != "\ufffd" for text in noise for c in text)
