"""Penalties, biases, bad words, min_tokens and log-probabilities as the official client uses them."""

import json
import math

import openai
import pytest

from conftest import ask, thinking

QUESTION = "Compute 45 + 11."
TEXT = "User: Compute 45 + 11.\nAssistant: <think>\n\n</think>\n\n"


def chat(server, text=QUESTION, extra=None, **fields):
    fields.setdefault("temperature", 0)
    fields.setdefault("max_tokens", 24)
    return server.client.chat.completions.create(model="default", messages=ask(text),
                                                 extra_body={**thinking(False), **(extra or {})}, **fields)


def complete(server, extra=None, **fields):
    fields.setdefault("temperature", 0)
    fields.setdefault("max_tokens", 16)
    return server.client.completions.create(model="default", prompt=fields.pop("prompt", TEXT), extra_body=extra or {}, **fields)


def ids_of(server, **body):
    body = {"prompt": TEXT, "temperature": 0, "max_tokens": 16, "return_token_ids": True, **body}
    response = server.http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["completion_token_ids"]


def test_chat_logprobs(server):
    reply = chat(server, logprobs=True, top_logprobs=5)
    content = reply.choices[0].logprobs.content
    assert b"".join(bytes(t.bytes) for t in content).decode() == reply.choices[0].message.content == "56"
    for entry in content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 5
        values = [t.logprob for t in entry.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert sum(math.exp(v) for v in values) <= 1.0001
        # Greedy: the chosen token is the likeliest.
        assert entry.top_logprobs[0].token == entry.token and entry.top_logprobs[0].logprob == entry.logprob
    plain = chat(server)
    assert plain.choices[0].logprobs is None and plain.choices[0].message.content == "56"
    assert chat(server, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []


def test_chat_logprobs_stream(server):
    fields = {"logprobs": True, "top_logprobs": 3, "temperature": 1.0, "seed": 5, "text": "Tell me something."}
    whole = chat(server, **fields).choices[0].logprobs.content
    entries = []
    for chunk in chat(server, stream=True, **fields):
        if chunk.choices and chunk.choices[0].logprobs is not None:
            entries += chunk.choices[0].logprobs.content
    assert [e.model_dump() for e in entries] == [e.model_dump() for e in whole]


def test_completion_logprobs(server):
    reply = complete(server, logprobs=2)
    choice = reply.choices[0]
    lp = choice.logprobs
    assert "".join(lp.tokens) == choice.text
    assert len(lp.tokens) == len(lp.token_logprobs) == len(lp.top_logprobs) == len(lp.text_offset)
    for token, value, top, offset in zip(lp.tokens, lp.token_logprobs, lp.top_logprobs, lp.text_offset):
        assert choice.text[offset:].startswith(token)
        assert top[token] == value == max(top.values()) and len(top) == 2
    assert complete(server, logprobs=0).choices[0].logprobs.top_logprobs is None
    streamed = [c.choices[0] for c in complete(server, logprobs=2, stream=True) if c.choices]
    assert sum((c.logprobs.tokens for c in streamed if c.logprobs), []) == lp.tokens
    assert sum((c.logprobs.text_offset for c in streamed if c.logprobs), []) == lp.text_offset


def test_logprobs_are_those_before_temperature_and_penalties(server):
    plain = complete(server, logprobs=1, max_tokens=1).choices[0].logprobs
    for fields in ({"temperature": 1.7, "seed": 3}, {"frequency_penalty": 1.5, "presence_penalty": 1.0}):
        again = complete(server, logprobs=1, max_tokens=1, **fields).choices[0].logprobs
        value = again.top_logprobs[0][plain.tokens[0]]
        assert value == plain.token_logprobs[0]
    favoured = ids_of(server, prompt="One day", max_tokens=1)[0]
    biased = complete(server, prompt=TEXT, logprobs=1, max_tokens=1, logit_bias={str(favoured): 100}).choices[0].logprobs
    assert biased.top_logprobs[0][plain.tokens[0]] == plain.token_logprobs[0]
    assert biased.token_logprobs[0] <= plain.token_logprobs[0]


def test_logit_bias_forces_and_forbids_a_token(server):
    usual = ids_of(server, max_tokens=4)
    other = next(i for i in range(1000, 1100) if i not in usual)
    assert ids_of(server, max_tokens=4, ignore_eos=True, logit_bias={str(other): 100}) == [other] * 4
    assert ids_of(server, max_tokens=1, logit_bias={str(usual[0]): -100})[0] != usual[0]


def test_bad_words(server):
    reply = chat(server)
    assert "56" in reply.choices[0].message.content
    without = chat(server, extra={"bad_words": ["5", "56"]}).choices[0].message.content
    assert not without.startswith("5") and "56" not in without
    story = {"prompt": "One day", "max_tokens": 6, "ignore_eos": True}
    usual = ids_of(server, **story)
    again = ids_of(server, **story, bad_words_token_ids=[usual[:2], usual[3]])
    assert again[0] == usual[0] and again[1] != usual[1] and usual[3] not in again


def test_penalties_against_repetition(server):
    def tokens(prompt="One day", **fields):
        return ids_of(server, prompt=prompt, max_tokens=60, ignore_eos=True, **fields)

    def repeats(ids):
        return len(ids) - len(set(ids))

    usual = tokens()
    assert repeats(usual) > 20
    assert repeats(tokens(frequency_penalty=2)) < repeats(usual)
    assert repeats(tokens(repetition_penalty=1.5)) < repeats(usual)
    assert repeats(tokens(repetition_penalty=50)) == 0
    # Two points once: enough for some text where two tokens lie close together.
    prompts = ["One day", "Tom", "The cat", "I", "When", "Once", "A big", TEXT]
    assert any(tokens(p) != tokens(p, presence_penalty=2) for p in prompts)


def test_min_tokens(server):
    usual = chat(server)
    assert usual.choices[0].finish_reason == "stop" and usual.usage.completion_tokens < 12
    longer = chat(server, extra={"min_tokens": 20}, max_tokens=24)
    assert longer.usage.completion_tokens >= 20
    exact = chat(server, extra={"min_tokens": 24}, max_tokens=24)
    assert exact.usage.completion_tokens == 24 and exact.choices[0].finish_reason == "length"


def test_a_seed_gives_the_same_answer_in_any_company(server):
    fields = {"temperature": 1.2, "seed": 11, "max_tokens": 40, "frequency_penalty": 0.3}
    alone = complete(server, prompt="One day", **fields).choices[0].text
    bodies = [dict(model="default", prompt=p, stream=True, **{**fields, "seed": s})
              for p, s in (("One day", 11), ("Tom", 1), ("The cat", 2), ("One day", 12))]
    streams = [server.client.completions.create(**b) for b in bodies]
    texts = ["".join(c.choices[0].text for c in s if c.choices) for s in streams]
    assert texts[0] == alone
    assert texts[3] != alone


@pytest.mark.parametrize("fields, words", [
    ({"repetition_penalty": 0}, ["repetition_penalty", "above 0"]),
    ({"repetition_penalty": -1}, ["repetition_penalty"]),
    ({"presence_penalty": 2.5}, ["presence_penalty", "from -2 to 2"]),
    ({"frequency_penalty": "1"}, ["frequency_penalty", "from -2 to 2"]),
    ({"logit_bias": {"99999999": 1}}, ["logit_bias", "token id from 0 to"]),
    ({"logit_bias": {"5": 101}}, ["logit_bias", "from -100 to 100"]),
    ({"logit_bias": {str(i): 1 for i in range(1025)}}, ["logit_bias", "1025", "1024", "--max-logit-bias"]),
    ({"bad_words": [""]}, ["bad_words[0]"]),
    ({"bad_words_token_ids": [-1]}, ["bad_words_token_ids[0]"]),
    ({"bad_words_token_ids": [1] * 1025}, ["bad_words_token_ids", "1024", "--max-banned-tokens"]),
    ({"min_tokens": 17}, ["min_tokens is 17", "max_tokens is 16"]),
    ({"logprobs": 21}, ["logprobs", "from 0 to 20", "--max-logprobs"]),
    ({"logprobs": -1}, ["logprobs", "from 0 to 20"]),
    ({"prompt_logprobs": 21}, ["prompt_logprobs", "from 0 to 20", "--max-logprobs"]),
    ({"prompt_logprobs": -1}, ["prompt_logprobs", "from 0 to 20", "--max-logprobs"]),
    ({"prompt_logprobs": 1, "stream": True}, ["prompt_logprobs", "stream"]),
    ({"seed": 2**64}, ["seed"]),
])
def test_errors(server, fields, words):
    response = server.http.post("/v1/completions", json={"prompt": TEXT, "max_tokens": 16, **fields})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error" and error["param"] == next(iter(fields))
    for word in words:
        assert word in error["message"], error["message"]


def test_top_logprobs_needs_logprobs(server):
    with pytest.raises(openai.BadRequestError) as error:
        chat(server, top_logprobs=3)
    assert "top_logprobs" in str(error.value)


def test_flags_of_fastdeploy_and_the_sampling_class(start_server, monkeypatch):
    monkeypatch.setenv("FD_SAMPLING_CLASS", "rejection")
    server = start_server("--enable-logprob", "--max-logprobs", "3", "--logprobs-mode", "raw_logprobs", "--max-model-len", "256")
    log = server.log_text()
    assert "FD_SAMPLING_CLASS=rejection" in log and "--enable-logprob" in log
    assert all(json.loads(line)["message"] for line in log.splitlines())
    assert len(complete(server, logprobs=3).choices[0].logprobs.top_logprobs[0]) == 3
    with pytest.raises(openai.BadRequestError, match="from 0 to 3"):
        complete(server, logprobs=4)
