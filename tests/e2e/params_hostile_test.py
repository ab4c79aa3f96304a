"""Absurd parameters (group P). The table of fields is the server's own (/openapi.json), so a new field cannot be forgotten.

Every value gets 200 or a 400 that names the field; a wrong type gets 400; null is the default.
"""

import json
import re

import pytest

from conftest import ask, thinking
from hostile import CANARY, Watch, check_refusal, cpu_seconds, each, post

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
FEW = {"max_tokens": 2, "max_completion_tokens": 2}
# What a right request of an endpoint may look like; the first one that gets 200 is the base of its table.
CANDIDATES = [{"messages": ask("a"), **FEW}, {"prompt": "a", **FEW}, {"input": "a", "max_output_tokens": 2}, {"input": "a"}, {"tokens": [5]}, {"prompt": "a"}, {"messages": ask("a")}]
# Taken without effect (docs/COMPATIBILITY.md), whatever stands in them.
UNREAD = {"trace_context", "store", "service_tier", "safety_identifier", "prompt_cache_key", "metadata"}
BIG = 10**30
WRONG = {  # of each type, what is not of it
    "integer": [1.5, -2.5, 1e308, 5e-324, 2**63, -2**63 - 1, BIG, True, False, "1", "", [], [1], {}],
    "number": [BIG * 10**200, True, "1", "NaN", "", [], [0.5], {}],
    "boolean": [0, 1, "true", "", 0.5, [], [True], {}],
    "string": [0, 1.5, True, [], ["a"], {}],
    "array": [0, 1.5, True, "a", {}],
    "object": [0, 1.5, True, "a", [], [{}]],
    "null": [0, 1.5, True, "a", [], [0], {"a": 1}],
}
ODD = {  # of the type, and absurd: 200 or 400
    "integer": [-1, 0, 1, 2**31 - 1, 2**31, -2**31, 2**32 + 1, 2**53, 2**63 - 1, -2**63, 2.0, 10**9],
    "number": [-1, -0.0, 0, 5e-324, -5e-324, 1e-30, 1e308, -1e308, 999999, 1.0000001, 2**63, -2**63],
    "boolean": [True, False],
    "string": ["", " ", "\u0000", "a\r\nb: c", "\U0001f680", "x" * (1 << 20), "../..", "%0d%0a", "null", "{{ 7*7 }}"],
    "array": [[], [None], [[]], [{}], [-1], [0], [2**31], [2**63], [1.5], ["a"], [""], ["a"] * 100_000, [0] * 100_000, [[0] * 1000] * 100],
    "object": [{}, {"": 0}, {"a": None}, {"-1": 1}, {str(2**31): 1}, {"0": 1e30}, {"0": "1"}, {str(i): 1 for i in range(100_000)}, {"a": {"b": {"c": [1]}}}],
    "null": [None],
}
NO_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "0x1", "+1", ".5", "1.")


def tables(server):
    """[(path, {field: type})] of every POST endpoint of /openapi.json that reads JSON and needs no admin key."""
    api = server.http.get("/openapi.json").json()
    schemas = api["components"]["schemas"]
    found = []
    for path, item in api["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {})
        if "application/json" not in content or "{" in path:
            continue
        schema = content["application/json"]["schema"]
        schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        fields = {}
        for name, property in schema["properties"].items():
            types = property.get("type", "any")
            types = [types] if isinstance(types, str) else [t for t in types if t != "null"] or ["null"]
            fields[name] = types[0] if len(types) == 1 else "any"
        found.append((path, fields))
    return found


def base_of(server, path):
    for body in CANDIDATES:
        reply = post(server, path, body)
        if reply.status_code == 200:
            return body
        if reply.status_code in (401, 403) or (reply.status_code == 400 and reply.json()["error"].get("code") == "unsupported_endpoint"):
            return None  # admin, or of a server that makes embeddings
    pytest.fail(f"{path}: no right request is known here; add one to CANDIDATES")


def with_field(base, field, text):
    body = {k: v for k, v in base.items() if k != field}
    return b"%s,%s:%s}" % (json.dumps(body).encode()[:-1] if body else b'{"unknown":0', json.dumps(field).encode(), text.encode())


def check_answer(reply, field, text, must_refuse=False):
    """200, or a refusal that names the field."""
    if reply.status_code == 200:
        assert not must_refuse, f"{field}: {text[:60]} was taken"
        return
    error = check_refusal(reply, status=404 if field == "model" and reply.status_code == 404 else 400)
    if reply.json().get("type") == "error":
        return  # Anthropic's errors have no place for the field; messages_test looks at theirs
    near = f"{error['param']} {error['message']}"
    # A prompt that stands in a field of its own may hide another one; an option may be refused for want of its partner.
    assert field in near or field.replace("completion_", "") in near or "maximum context length" in near or "missing" in near, (field, text[:60], error)


def test_every_field_of_every_endpoint(shared_server):
    server = shared_server
    seen, shapes, cases = set(), set(), []

    def check(path, base, field, text, verdict):
        reply = post(server, path, with_field(base, field, text))
        if verdict == "no JSON":
            check_refusal(reply, verdict)
        elif verdict == "taken":
            assert reply.status_code == 200, (path, field, text, reply.text)
        else:
            check_answer(reply, field, text, verdict == "refused")

    with Watch(server):
        for path, fields in tables(server):
            shape = frozenset(fields.items())
            base = base_of(server, path)
            if base is None or (shape in shapes and path.startswith("/v1/tok")):
                continue
            # The second endpoint of a schema (an alias, render) reads it with the same code: a part of the values.
            part = 3 if shape in shapes else 1
            shapes.add(shape)
            seen |= set(fields)
            for field, kind in fields.items():
                body = {**base, "stream": True} if field == "stream_options" else base
                kinds = [kind] if kind != "any" else list(WRONG)
                ours = path in (CHAT, COMPLETIONS, "/tokenize", "/v1/tokenize")  # the others take some fields unread
                wrong = "refused" if ours and kind not in ("any", "null") and field not in UNREAD else "either"
                values = {json.dumps(v): "either" for k in kinds for v in ODD[k]} | {json.dumps(v): wrong for k in kinds for v in WRONG[k]} | {t: "no JSON" for t in NO_NUMBERS}
                cases += [(path, body, field, text, verdict) for text, verdict in list(values.items())[::part]]
                cases.append((path, body, field, "null", "either" if field in body else "taken"))
        assert {"temperature", "top_p", "n", "messages", "prompt", "stop", "logit_bias", "tools", "tokens", "stream"} <= seen
        assert len(cases) > 2000
        each(check, cases)


@pytest.mark.parametrize("path, prompt", [(CHAT, {"messages": ask("a")}), (COMPLETIONS, {"prompt": "a"})])
def test_p1_floats_are_taken_or_refused(server, path, prompt):
    """The accepted range of each, to its borders; what lies outside is told with the range."""
    ranges = {"temperature": (0, 100), "top_p": (0, 1), "min_p": (0, 1), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)}
    for field, (low, high) in ranges.items():
        for value in (low, high, (low + high) / 2, 5e-324, 0, -0.0):
            assert post(server, path, {**prompt, "max_tokens": 2, field: value}).status_code == 200, (field, value)
        for value in (low - 1e-9, high + 1e-9, -1e308, 1e308, 999999, high + 1):
            error = check_refusal(post(server, path, {**prompt, "max_tokens": 2, field: value}), f"{field} must be a number from {low} to {high}")
            assert error["param"] == field
    for value in (0, -1, 101, 1e308, -0.0):
        check_refusal(post(server, path, {**prompt, "max_tokens": 2, "repetition_penalty": value}), "repetition_penalty")
    for value in (5e-324, 1e-39, 1e-30, 0.01, 100):
        reply = post(server, path, {**prompt, "max_tokens": 3, "repetition_penalty": value, "temperature": 100})
        assert reply.status_code == 200 or "repetition_penalty" in reply.json()["error"]["message"], reply.text
    check_refusal(post(server, path, {**prompt, "temperature": 999999, "repetition_penalty": 0}), "temperature")


def test_p1_extremes_together(server):
    """Every number at its border at once: tokens come, none is NaN."""
    with Watch(server):
        for fields in ({"temperature": 100, "top_p": 1, "top_k": 2**31 - 1, "min_p": 0, "presence_penalty": 2, "frequency_penalty": 2, "repetition_penalty": 100},
                       {"temperature": 1e-300, "top_p": 0, "top_k": 1, "min_p": 1, "presence_penalty": -2, "frequency_penalty": -2, "repetition_penalty": 0.0001},
                       {"temperature": 1e-4, "top_p": 1e-9, "min_p": 1}, {"temperature": 100, "min_p": 1}, {"temperature": 1.1e-5, "presence_penalty": 2},
                       {"logit_bias": {str(i): (-1) ** i * 100 for i in range(1000)}, "temperature": 1e-5}):
            reply = post(server, CHAT, {"messages": ask("a"), "max_tokens": 6, "seed": 1, "logprobs": True, "top_logprobs": 20, **fields})
            assert reply.status_code == 200, reply.text
            for entry in reply.json()["choices"][0]["logprobs"]["content"]:
                assert all(-1e5 < top["logprob"] <= 1e-5 for top in entry["top_logprobs"]), entry


@pytest.mark.parametrize("fields, words", [
    ({"n": 10**9}, ["n must be", "128"]), ({"n": 129}, ["128"]), ({"best_of": 10**9}, ["best_of"]), ({"best_of": 2, "n": 1}, ["best_of"]),
    ({"max_tokens": 2**31}, ["max_tokens", "4096"]), ({"max_completion_tokens": 2**31}, ["max_completion_tokens", "4096"]),
    ({"min_tokens": 5, "max_tokens": 4}, ["min_tokens is 5", "max_tokens is 4"]), ({"min_tokens": 2**31}, ["min_tokens", "4096"]),
    ({"stop": ["x"] * 100_000}, ["100000", "16", "--max-stop-strings"]), ({"stop": ""}, ["stop", "empty"]), ({"stop": ["a", ""]}, ["stop", "empty"]),
    ({"stop": "x" * (1 << 20)}, ["1048576", "1024", "--max-stop-bytes"]), ({"stop": [["a"]]}, ["stop"]), ({"stop": {"a": 1}}, ["stop"]),
    ({"logit_bias": {str(i): 1 for i in range(100_000)}}, ["100000", "1024", "--max-logit-bias"]), ({"logit_bias": {"5": 1e30}}, ["logit_bias", "-100", "100"]),
    ({"logit_bias": {"5": -101}}, ["logit_bias"]), ({"logit_bias": {"five": 1}}, ["five", "token id"]), ({"logit_bias": {"5": None}}, ["logit_bias"]),
    ({"stop_token_ids": [5] * 100_000}, ["100000", "128", "--max-stop-token-ids"]), ({"bad_words": [f"x{i}" for i in range(50_000)]}, ["1024", "--max-banned-tokens"]),
    ({"bad_words": [""]}, ["bad_words"]), ({"bad_words_token_ids": [[5]] * 100_000}, ["100000", "--max-banned-tokens"]), ({"bad_words_token_ids": [[]]}, ["bad_words_token_ids"]),
    ({"tools": [{"type": "function", "function": {"name": "f"}}] * 10_000}, ["10000", "128", "--max-tools"]),
    ({"reasoning_max_tokens": 0}, ["reasoning_max_tokens"]), ({"reasoning_max_tokens": -1}, ["reasoning_max_tokens"]), ({"top_k": -2}, ["top_k"]),
    ({"max_streaming_response_tokens": -1}, ["max_streaming_response_tokens"]),
])
def test_p3_counts_beyond_the_limits(server, fields, words):
    """400, and the message says the limit and its flag."""
    check_refusal(post(server, CHAT, {"messages": ask("a"), "max_tokens": 4, **fields}), *words)


def test_p3_logprobs(server):
    for count in (10**9, -1, 21, 2**31):
        check_refusal(post(server, CHAT, {"messages": ask("a"), "logprobs": True, "top_logprobs": count, "max_tokens": 1}), "top_logprobs", "20", "--max-logprobs")
        check_refusal(post(server, COMPLETIONS, {"prompt": "a", "logprobs": count, "max_tokens": 1}), "logprobs", "20", "--max-logprobs")
    check_refusal(post(server, CHAT, {"messages": ask("a"), "top_logprobs": 5}), "top_logprobs", "logprobs")


def test_p4_token_ids_out_of_range(server):
    """Below 0, at and beyond the vocabulary, beyond 31 and 63 bits, in every field that takes ids; a request beside it is not touched."""
    vocab = int(re.search(r"from 0 to (\d+)", post(server, COMPLETIONS, {"prompt": [-1]}).json()["error"]["message"])[1]) + 1
    with Watch(server):
        cases = []
        for wrong in (-1, -2**31, vocab, vocab + 1, vocab + 64, 2**16 + 5, 2**31, 2**32 + 5, 2**63 - 1, 2**63, 2**64 + 5, 1.5, "5", None, True):
            for fields in ({"prompt": [wrong]}, {"prompt": [5, wrong]}, {"prompt": [[5], [6, wrong]]}, {"prompt_token_ids": [5, wrong]}, {"prompt": "a", "stop_token_ids": [wrong]},
                           {"prompt": "a", "bad_words_token_ids": [[5, wrong]]}, {"prompt": "a", "bad_words_token_ids": [wrong]}, {"prompt": "a", "allowed_token_ids": [wrong]},
                           {"prompt": "a", "logit_bias": {json.dumps(wrong): 1}}):
                if fields != {"prompt": ["5"]}:  # a text
                    cases.append((COMPLETIONS, {"max_tokens": 1, **fields}))
            cases += [(CHAT, {"prompt_token_ids": [5, wrong], "max_tokens": 1}), ("/detokenize", {"tokens": [wrong]})]
        each(lambda path, body: check_refusal(post(server, path, body)), cases)
        # Every id of the vocabulary is one: those without a text of their own (beyond the tokenizer, unused) too.
        for start in range(0, vocab, 500):
            ids = list(range(start, min(start + 500, vocab)))
            assert post(server, "/detokenize", {"tokens": ids}).status_code == 200
            assert post(server, COMPLETIONS, {"prompt": ids, "max_tokens": 1, "logprobs": 1, "echo": False}).status_code == 200


def test_p4_ids_that_are_drawn_have_a_text(server):
    """Logits are wider than the tokenizer where a model is padded: no padding id is ever drawn, whatever the temperature."""
    for seed in range(8):
        reply = post(server, COMPLETIONS, {"prompt": "a", "max_tokens": 40, "temperature": 100, "top_p": 1, "seed": seed, "ignore_eos": True, "return_token_ids": True})
        ids = reply.json()["choices"][0]["completion_token_ids"]
        assert len(ids) == 40 and post(server, "/detokenize", {"tokens": ids}).status_code == 200


@pytest.mark.parametrize("body, path, status", [
    ({"prompt": ""}, COMPLETIONS, None), ({"prompt": []}, COMPLETIONS, 400), ({"prompt": [[]]}, COMPLETIONS, 400), ({"prompt": [""]}, COMPLETIONS, None),
    ({"prompt": ["a", []]}, COMPLETIONS, 400), ({"prompt": ["a", 5]}, COMPLETIONS, 400), ({"prompt": [5, "a"]}, COMPLETIONS, 400), ({"prompt": [[5], "a"]}, COMPLETIONS, 400),
    ({"prompt": {}}, COMPLETIONS, 400), ({"prompt": None}, COMPLETIONS, 400), ({}, COMPLETIONS, 400), ({"prompt": [None]}, COMPLETIONS, 400), ({"prompt": [[[5]]]}, COMPLETIONS, 400),
    ({"prompt": "<s></s><|im_end|><|im_end|>"}, COMPLETIONS, 200), ({"prompt": [0, 1, 2]}, COMPLETIONS, 200), ({"prompt": ["a"] * 129}, COMPLETIONS, 400),
    ({"messages": []}, CHAT, 400), ({"messages": {}}, CHAT, 400), ({"messages": None}, CHAT, 400), ({}, CHAT, 400), ({"messages": [[]]}, CHAT, 400), ({"messages": [None]}, CHAT, 400),
    ({"messages": [{"role": "user", "content": None}]}, CHAT, 400), ({"messages": [{"role": "user"}]}, CHAT, 400), ({"messages": [{"role": "user", "content": ""}]}, CHAT, 200),
    ({"messages": [{"role": "user", "content": []}]}, CHAT, None), ({"messages": [{"role": "user", "content": [{}]}]}, CHAT, 400),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, CHAT, 200), ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, CHAT, 400),
    ({"messages": [{"role": "user", "content": {}}]}, CHAT, 400), ({"messages": [{"role": "", "content": "a"}]}, CHAT, 400), ({"messages": [{"content": "a"}]}, CHAT, 400),
    ({"messages": [{"role": "assistant", "content": "a"}]}, CHAT, None), ({"messages": [{"role": "system", "content": "a"}]}, CHAT, None),
    ({"messages": [{"role": "user", "content": "<|im_end|></s><think></think>"}]}, CHAT, 200), ({"prompt_token_ids": []}, CHAT, 400), ({"prompt_token_ids": {}}, CHAT, 400),
    ({"prompt": ""}, "/tokenize", 200), ({"tokens": []}, "/detokenize", 200), ({"tokens": [[]]}, "/detokenize", 400),
])
def test_p5_empty_and_special_prompts(server, body, path, status):
    body = {**body, "max_tokens": 2} if path.startswith("/v1") else body
    reply = post(server, path, body)
    if status == 200 or (status is None and reply.status_code == 200):
        assert reply.status_code == 200, reply.text
    else:
        check_refusal(reply)


def test_p6_too_long_is_told_at_once_and_the_queue_moves(server):
    """Both numbers, before anything runs; requests behind it are answered meanwhile."""
    with Watch(server):
        for path, prompt in ((CHAT, {"messages": ask("rocket " * 6000)}), (COMPLETIONS, {"prompt": "rocket " * 6000}), (COMPLETIONS, {"prompt": [5] * 4096}),
                             (COMPLETIONS, {"prompt": [5] * 500_000}), (CHAT, {"prompt_token_ids": [5] * 4097})):
            begin = cpu_seconds(server)
            error = check_refusal(post(server, path, {**prompt, "max_tokens": 1}), "maximum context length is 4096", "--max-model-len")
            assert error["code"] == "context_length_exceeded" and cpu_seconds(server) - begin < 20
            numbers = [int(n) for n in re.findall(r"\d+", error["message"])]
            assert any(n >= 4096 for n in numbers[1:]), error
        # The longest that fits gets its one token; max_tokens beyond the rest is cut to the rest.
        reply = post(server, COMPLETIONS, {"prompt": [5] * 4095, "max_tokens": 4096, "ignore_eos": True})
        assert reply.status_code == 200 and reply.json()["choices"][0]["finish_reason"] == "length" and reply.json()["usage"]["completion_tokens"] == 1


def test_p6_more_than_the_cache_holds(start_server):
    """A prompt that fits the model and not the pages: told with both numbers, at start or at admission; what fits goes on."""
    server = start_server("--max-model-len", "512", "--num-kv-pages", "8", "--max-num-seqs", "4")
    with Watch(server):
        reply = post(server, COMPLETIONS, {"prompt": [5] * 500, "max_tokens": 12, "ignore_eos": True})
        assert reply.status_code == 200, reply.text  # 8 pages are 512 tokens: alone it fits
        check_refusal(post(server, COMPLETIONS, {"prompt": [5] * 512, "max_tokens": 1}), "512")
        # Four that grow beyond the pages together: each waits for its turn and ends.
        bodies = {"prompt": [[5] * 200] * 4, "max_tokens": 250, "ignore_eos": True, "temperature": 0, "return_token_ids": True}
        choices = post(server, COMPLETIONS, bodies).json()["choices"]
        assert len(choices) == 4 and all(c["finish_reason"] == "length" for c in choices)
        assert all(c["completion_token_ids"] == choices[0]["completion_token_ids"] for c in choices)


def test_p6_longer_than_all_pages(start_server):
    """Fewer pages than one sequence of the model's length: what they cannot hold is refused with both numbers, the rest is answered."""
    server = start_server("--max-model-len", "1024", "--num-kv-pages", "4", "--max-num-seqs", "4")
    with Watch(server):
        for prompt, count in (([5] * 600, 1), ([5] * 200, 400)):
            begin = cpu_seconds(server)
            error = check_refusal(post(server, COMPLETIONS, {"prompt": prompt, "max_tokens": count, "ignore_eos": True}), "256")
            assert str(len(prompt)) in error["message"] or str(len(prompt) + count) in error["message"], error
            assert cpu_seconds(server) - begin < 20
        assert post(server, COMPLETIONS, {"prompt": [5] * 200, "max_tokens": 8}).status_code == 200


def test_p7_seeds(server):
    """Each 64-bit integer is a seed that gives the same answer twice; 2^64 - 1 is none."""
    def text(seed):
        return post(server, CHAT, {**CANARY, "seed": seed, "max_tokens": 12, "temperature": 5}).json()["choices"]
    answers = []
    with Watch(server):
        for seed in (0, -1, 1, 2**31, 2**63 - 1, -2**63, 922337203685477580):
            answers.append(json.dumps(text(seed)))
            assert json.loads(answers[-1]) == text(seed), seed
        assert text(2.0) == text(2)
        for seed in (2**64 - 1, 2**63, -2**63 - 1, 0.5, "1", True):
            check_refusal(post(server, CHAT, {**CANARY, "seed": seed}), "seed")
    assert len(set(answers)) > 3, "seeds make no difference"
    free = {k: v for k, v in CANARY.items() if k != "seed"}
    assert len({json.dumps(post(server, CHAT, {**free, "max_tokens": 24, "temperature": 5}).json()["choices"]) for _ in range(4)}) > 1


def test_reasoning_and_template_arguments(server):
    """Arguments of the template cannot take the place of what the server gives it."""
    for kwargs in ({"messages": []}, {"tools": []}, {"add_generation_prompt": False}, {"tokenize": True}, {"chat_template": "x"}, {"enable_thinking": "yes"}, {"options": 5},
                   {"options": {"thinking_mode": 5}}):
        reply = post(server, CHAT, {"messages": ask("a"), "max_tokens": 1, "chat_template_kwargs": kwargs})
        if reply.status_code != 200:
            check_refusal(reply)
    for place in ({"enable_thinking": 1}, {"metadata": {"enable_thinking": "no"}}, {"metadata": {"reasoning_max_tokens": 1.5}}, {"metadata": 5}, {"metadata": []}):
        check_refusal(post(server, CHAT, {"messages": ask("a"), "max_tokens": 1, **place}))
    assert post(server, CHAT, {"messages": ask("a"), "max_tokens": 1, **thinking(True)}).status_code == 200
