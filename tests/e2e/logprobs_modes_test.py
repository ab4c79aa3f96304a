"""temp_scaled_logprobs, top_p_normalized_logprobs and --logprobs-mode, against the same numbers computed here from
the log-probabilities, or logits, of the whole vocabulary."""

import math
import subprocess

import pytest

from conftest import BINARY, MODEL, ask

VOCAB = 2624
NEVER = -9999  # what JSON has for -infinity
TEXT = "User: Compute 45 + 11.\nAssistant: The answer"


def post(server, path="/v1/completions", **body):
    response = server.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def ids_of(server, text=TEXT):
    return post(server, "/tokenize", prompt=text)["tokens"]


def whole_vocabulary(server, ids):
    """What the server says of each token behind these, by echoing a prompt for every one."""
    values = []
    for begin in range(0, VOCAB, 128):
        prompts = [ids + [v] for v in range(begin, min(begin + 128, VOCAB))]
        reply = post(server, prompt=prompts, echo=True, logprobs=0, max_tokens=0)
        values += [c["logprobs"]["token_logprobs"][-1] for c in sorted(reply["choices"], key=lambda c: c["index"])]
    return values


def order(x):
    return sorted((v for v in range(VOCAB) if x[v] > NEVER), key=lambda v: (-x[v], v))


def log_softmax(x, top_p=1.0):
    likeliest = order(x)
    total = sum(math.exp(x[v] - x[likeliest[0]]) for v in likeliest)
    kept, before = [], 0.0
    for v in likeliest:
        if kept and top_p < 1 and before >= top_p * total:
            break
        before += math.exp(x[v] - x[likeliest[0]])
        kept.append(v)
    inside = set(kept)
    return [x[v] - x[likeliest[0]] - math.log(before) if v in inside else NEVER for v in range(VOCAB)]


def scaled(x, temperature):
    return [v / temperature if v > NEVER else NEVER for v in x]


def one_token(server, ids, **fields):
    """Id and value of the token that is drawn, and {id: value} of the 20 likeliest."""
    reply = post(server, prompt=ids, max_tokens=1, logprobs=20, return_tokens_as_token_ids=True, ignore_eos=True, **fields)
    lp = reply["choices"][0]["logprobs"]

    def id_of(name):
        return int(name.removeprefix("token_id:"))

    top = {id_of(name): value for name, value in lp["top_logprobs"][0].items()}
    return id_of(lp["tokens"][0]), lp["token_logprobs"][0], top


def check(answer, source, values, tolerance=1e-4):
    """source: by what the list is ordered; values: what stands beside each token."""
    token, value, top = answer
    listed = set(order(source)[:20])
    # Equal values may stand in another order here, because JSON rounds them.
    least = min(source[v] for v in listed)
    assert all(v in top for v in listed if source[v] > least + tolerance)
    assert len(top) in (len(listed), len(listed) + 1) and token in top
    assert value == top[token]
    for v, found in top.items():
        assert abs(found - values[v]) < tolerance or found == values[v] == NEVER, (v, found, values[v])


@pytest.fixture(scope="module")
def raw(server):
    ids = ids_of(server)
    values = whole_vocabulary(server, ids)
    assert abs(sum(math.exp(v) for v in values if v > NEVER) - 1) < 1e-4
    return ids, values


@pytest.mark.parametrize("temperature", [0.3, 0.9, 1.0, 2.2])
@pytest.mark.parametrize("top_p", [0.2, 0.85, 1.0])
def test_fields_against_the_whole_vocabulary(server, raw, temperature, top_p):
    ids, values = raw
    fields = {"temperature": temperature, "top_p": top_p, "seed": 4}
    drawn = one_token(server, ids, **fields)
    check(drawn, values, values)
    for scale in (False, True):
        for normalize in (False, True):
            got = one_token(server, ids, temp_scaled_logprobs=scale, top_p_normalized_logprobs=normalize, **fields)
            assert got[0] == drawn[0], "what is reported must not change what is drawn"
            x = scaled(values, temperature) if scale else values
            check(got, values, log_softmax(x, top_p if normalize else 1.0))
            if scale and normalize:
                assert got[1] > NEVER  # of the very distribution that it was drawn from


def test_greedy_has_no_temperature(server, raw):
    ids, values = raw
    token, value, top = one_token(server, ids, temperature=0, temp_scaled_logprobs=True)
    check((token, value, top), values, values)
    got = one_token(server, ids, temperature=0, top_p=0.3, temp_scaled_logprobs=True, top_p_normalized_logprobs=True)
    check(got, values, log_softmax(values, 0.3))
    assert got[0] == token


def test_a_prompt_stays_as_it_is(server, raw):
    ids, _ = raw
    body = {"prompt": ids, "echo": True, "logprobs": 3, "prompt_logprobs": 2, "max_tokens": 4, "temperature": 0.5, "seed": 1}
    plain = post(server, **body)["choices"][0]
    other = post(server, **body, temp_scaled_logprobs=True, top_p_normalized_logprobs=True, top_p=0.5)["choices"][0]
    assert other["prompt_logprobs"] == plain["prompt_logprobs"]
    count = len(ids)
    assert other["logprobs"]["token_logprobs"][:count] == plain["logprobs"]["token_logprobs"][:count]
    assert other["logprobs"]["token_logprobs"][count:] != plain["logprobs"]["token_logprobs"][count:]


CHAT = {"messages": ask("Tell me something."), "max_tokens": 12, "temperature": 0.7, "top_p": 0.6, "seed": 9,
        "logprobs": True, "top_logprobs": 6, "enable_thinking": False}
BOTH = {"temp_scaled_logprobs": True, "top_p_normalized_logprobs": True}


def test_chat_and_its_stream(server):
    plain = post(server, "/v1/chat/completions", **CHAT)["choices"][0]["logprobs"]["content"]
    whole = post(server, "/v1/chat/completions", **CHAT, **BOTH)["choices"][0]["logprobs"]["content"]
    assert [e["token"] for e in whole] == [e["token"] for e in plain] and len(whole) > 3
    for entry, before in zip(whole, plain):
        assert [t["token"] for t in entry["top_logprobs"]] == [t["token"] for t in before["top_logprobs"]]
        kept = [(t, b) for t, b in zip(entry["top_logprobs"], before["top_logprobs"]) if t["logprob"] > NEVER]
        assert kept and entry["logprob"] > NEVER
        for t, b in kept:
            assert abs((t["logprob"] - kept[0][0]["logprob"]) - (b["logprob"] - kept[0][1]["logprob"]) / 0.7) < 1e-4
        if len(kept) < 6:  # the whole nucleus is listed
            assert abs(sum(math.exp(t["logprob"]) for t, _ in kept) - 1) < 1e-4
    streamed = []
    extra = {"enable_thinking": False, **BOTH}
    for chunk in server.client.chat.completions.create(model="default", stream=True, extra_body=extra,
                                                       **{k: v for k, v in CHAT.items() if k != "enable_thinking"}):
        if chunk.choices and chunk.choices[0].logprobs:
            streamed += [e.model_dump() for e in chunk.choices[0].logprobs.content]
    assert streamed == whole


def test_responses(server):
    body = {"input": "Tell me something.", "max_output_tokens": 12, "top_logprobs": 6, "enable_thinking": False,
            **{k: CHAT[k] for k in ("temperature", "top_p", "seed")}}
    chat = post(server, "/v1/chat/completions", **CHAT, **BOTH)["choices"][0]["logprobs"]["content"]
    reply = post(server, "/v1/responses", **body, **BOTH)
    entries = reply["output"][-1]["content"][0]["logprobs"]
    assert [(e["token"], e["logprob"]) for e in entries] == [(e["token"], e["logprob"]) for e in chat]
    assert [[t["logprob"] for t in e["top_logprobs"]] for e in entries] == [[t["logprob"] for t in e["top_logprobs"]] for e in chat]


@pytest.mark.parametrize("field", sorted(BOTH))
def test_errors(server, field):
    for path, body in (("/v1/completions", {"prompt": "a", "logprobs": 1}), ("/v1/chat/completions", {"messages": ask("a")})):
        for bad in ("yes", 1, []):
            response = server.http.post(path, json={"max_tokens": 1, **body, field: bad})
            assert response.status_code == 400 and response.json()["error"]["param"] == field, response.text
        # Without log-probabilities there is nothing to change.
        body.pop("logprobs", None)
        assert server.http.post(path, json={"max_tokens": 1, **body, field: True}).status_code == 200


def edited(logits, ids, repetition, bias, allowed=None):
    x = list(logits)
    for v in set(ids):
        x[v] = x[v] / repetition if x[v] > 0 else x[v] * repetition
    for v, b in bias.items():
        x[v] += b
    return [x[v] if logits[v] > NEVER and (allowed is None or v in allowed) else NEVER for v in range(VOCAB)]


def test_modes(server, raw, start_server):
    ids, values = raw
    by_raw = order(values)
    biased = by_raw[30]
    edits = {"repetition_penalty": 1.4, "logit_bias": {str(biased): 6.5, str(by_raw[0]): -3}}
    bias = {biased: 6.5, by_raw[0]: -3}
    allowed = set(by_raw[5:40])
    fields = {"temperature": 0.8, "top_p": 0.9, "seed": 21}
    variants = [({}, 1.0, {}, None), (edits, 1.4, bias, None), ({**edits, "allowed_token_ids": sorted(allowed)}, 1.4, bias, allowed)]
    drawn = [one_token(server, ids, **fields, **v[0])[0] for v in variants]

    logits_server = start_server("--logprobs-mode", "raw_logits", "--max-model-len", "1024")
    logits = whole_vocabulary(logits_server, ids)
    for v, w in zip(log_softmax(logits), values):
        assert abs(v - w) < 1e-4 or v == w == NEVER
    for variant, token in zip(variants, drawn):
        got = one_token(logits_server, ids, **fields, **variant[0])
        assert got[0] == token
        check(got, logits, logits)
    for field in BOTH:
        body = {"prompt": ids, "max_tokens": 1, "logprobs": 1, field: True}
        response = logits_server.http.post("/v1/completions", json=body)
        assert response.status_code == 400 and response.json()["error"]["param"] == field, response.text
        assert "--logprobs-mode" in response.json()["error"]["message"]
    # In a list of both, prompt and answer have the same kind of number.
    echoed = post(logits_server, prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0)["choices"][0]["logprobs"]
    assert abs(echoed["token_logprobs"][-1] - max(logits)) < 1e-4
    logits_server.stop()

    for mode in ("processed_logprobs", "processed_logits"):
        other = start_server("--logprobs-mode", mode, "--max-model-len", "1024")
        for (wish, repetition, add, only), token in zip(variants, drawn):
            x = edited(logits, ids, repetition, add, only)
            hot = scaled(x, 0.8)
            got = one_token(other, ids, **fields, **wish)
            assert got[0] == token, (mode, wish)
            check(got, x, hot if mode == "processed_logits" else log_softmax(hot))
            if mode == "processed_logprobs":  # the temperature counts once; top_p where it is asked for
                check(one_token(other, ids, **fields, **wish, temp_scaled_logprobs=True), x, log_softmax(hot))
                got = one_token(other, ids, **fields, **wish, top_p_normalized_logprobs=True)
                check(got, x, log_softmax(hot, 0.9))
                assert got[1] > NEVER
        other.stop()


def test_an_unknown_mode_ends_the_start():
    done = subprocess.run([BINARY, "serve", "--model", MODEL, "--logprobs-mode", "raw"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "raw_logprobs" in done.stderr and "processed_logits" in done.stderr, done.stderr
