"""Hostile JSON (group J): what is JSON is read, what is none is refused, in bounded time and memory, on every endpoint that reads it."""

import json
import math
import random

import pytest

from conftest import ask, thinking
from hostile import Watch, check_refusal, cpu_seconds, each, post

NO_JSON = "the request body is no JSON: "
CHAT = "/v1/chat/completions"
SMALL = [{"role": "user", "content": "a"}]
# A whole and right body of each endpoint.
BODIES = {
    CHAT: {"messages": SMALL, "max_tokens": 1},
    "/v1/chat/completions/render": {"messages": SMALL, "max_tokens": 1},
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [5]},
}

# RFC 8259 in our own words; the names are the classes of JSONTestSuite. yes: must be read; no: must be refused.
YES = [
    # structure
    "null", "true", "false", "[]", "{}", " [] ", "[\n]", "\t[]\r\n", "[[]]", "[[[[]]],[]]", "[{}]", '{"":0}', '{"a":[]}', '{"a":{}}', "3", "-1", "0", '"x"', '""', " 7 ",
    "[null, 1, \"1\", {}]", "[1,null,null,null,2]", '{"a":null,"b":true}', '{"a":"b","c":"d"}', '{\n"a":\n1\n}', "[" * 64 + "]" * 64, '{"a":' * 63 + "0" + "}" * 63,
    # numbers
    "[0]", "[-0]", "[-0.0]", "[0e1]", "[0e+1]", "[0E-1]", "[1E22]", "[1e+2]", "[1e-2]", "[123e45]", "[123.456e78]", "[123e65]", "[20e1]", "[1.5]", "[-1.5]", "[-123]",
    "[123123123123123123123]", "[9223372036854775807]", "[9223372036854775808]", "[-9223372036854775808]", "[-9223372036854775809]", "[1e308]", "[5e-324]", "[1e-999]",
    "[-1e-999]", "[0.0000000000000000000000000000000000000000001]", "[" + "9" * 300 + "]", "[0." + "1" * 1000 + "]", "[123.456789]", "[4 ]", "[1e0]",
    # strings
    r'["\u0060\u012a\u12AB"]', r'["\ud801\udc37"]', r'["\ud83d\ude39\ud83d\udc8d"]', r'["\"\\\/\b\f\n\r\t"]', r'["\\u0000"]', r'["\u0000"]', r'["\""]', '["a/*b*/c/*d//e"]',
    r'["\\a"]', r'["\\n"]', r'["\u0012"]', r'["\uFFFF"]', r'["\uDBFF\uDFFE"]', '["asd"]', '[ "asd"]', r'["new\u00A0line"]', '["\U0010ffff"]', '["\uffff"]', '["\u2028"]',
    '["\u2029"]', '["\u00e9"]', r'["\u0821"]', r'["\u0123"]', '[" "]', r'["\u0061\u30af\u30EA\u30b9"]', '["\x7f"]', r'["a\u007Fb"]', '["\u2603\u2603"]', r'["\uD834\uDd1e"]',
    '["\u200b\u202e"]', '{"\\u0061":1}', '{"a\\u0000b":1}', '{"key":"' + "v" * 1000 + '"}', r'["\u005C"]', r'["\u0022"]', '["\ue000"]', '["\ufeff"]', r'["\uFEFF"]',
]
NO = [
    # structure
    "", " ", "[", "]", "{", "}", "[}", "{]", "[1", "[1,", "[,", "[,1]", "[1,]", "[1,,]", "[1,,2]", "[1 2]", "[1:2]", '["a" "b"]', '["a":1]', "[[]", "[]]", "[]1", "[][]", "{}{}",
    "{}x", "{}//", "{}/**/", "{}#", "[1]x", "1]", "{\"a\":1}}", "[\"\",]", "[3[4]]", "[{}{}]", "[*]", "[x", "<.>", "<null>", "[<null>]", "*", ",", ":", "[a]", "nul", "nulll", "tru",
    "fals", "TRUE", "True", "NULL", "None", "undefined", "[nul]", "[tru]", "[fals]", "\u00e9", "\u2060[]", "\x0c[]", "[\x0c]", "[\x0b]", "\u00a0[]", "[\u00a0]", "[\u3000]",
    "[1\u00a0]", "a", "'a'", "['a']", "/**/[]", "//\n[]", "[1]//", "#\n[]", "--1", "[--1]", "{'a':1}", "{a:1}", "{1:1}", "{null:1}", "{true:1}", "{[]:1}", "{,}", '{"a"}', '{"a":}',
    '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', '{"a":1,,"b":2}', '{"a":1 "b":2}', '{"a" "b"}', '{"a",1}', '{"a"::1}', '{"a":1;"b":2}', '{"a":=1}', '{:1}', '{"a":1:2}',
    '{"a":a}', '{"a":"b}', '{"a":{"b":1}', '{"a":[}', '[{"a":1]', "{\"a\":[1]]", '{"x"::"b"}', "[\"a\",\n4\n,1,", "[1,\n1\n,1", "[{", "{\"\":", "{[",
    # numbers
    "+1", "[+1]", "[01]", "[-01]", "[00]", "[1.]", "[.5]", "[-.5]", "[1.e2]", "[.e1]", "[1e]", "[1e+]", "[1e-]", "[1E]", "[1E+]", "[e1]", "[1ee2]", "[1e1.5]", "[1.2.3]", "[1-2]",
    "[1+2]", "[-]", "[- 1]", "[-a]", "[-1x]", "[0x1]", "[0b1]", "[0o7]", "[1_000]", "[1,000.]", "[1f]", "[1n]", "[1L]", "[NaN]", "[-NaN]", "[nan]", "[Infinity]", "[-Infinity]",
    "[+Infinity]", "[inf]", "[Inf]", "[-Inf]", "NaN", "[1e1000]", "[-1e1000]", "[1e999]", "[123123e100000]", "[1" + "0" * 400 + "]", "[\uff11]", "[\u0661]", "[1 000]", "[0 1]",
    "[2.e3]", "[2.e-3]", "[0.3e]", "[0e]", "[1eE2]", "[9.e+]", "[1/2]", "[\u221e]", "[0x]", "[1.0e]", "[1a]", "[012]", "[-012]", "[.-1]", "[0.e1]", "[--0]",
    # strings
    '["', '["a', '"a', '["\\"]', '["\\', '["\\x41"]', '["\\a"]', '["\\\'"]', '["\\0"]', '["\\v"]', '["\\U0041"]', '["\\u"]', '["\\u0"]', '["\\u00"]', '["\\u004"]', '["\\u00g1"]',
    '["\\u{41}"]', '["\\ "]', '["\\\n"]', '["a\nb"]', '["a\tb"]', '["a\rb"]', '["\x00"]', '["\x01"]', '["\x1f"]', '["a\x00a"]', '["\\ud800"]', '["\\udc00"]', '["\\ud800\\ud800"]',
    '["\\udc00\\ud800"]', '["\\ud800x"]', '["\\ud800\\n"]', '["\\ud800\\u0041"]', '["\\ud83d', '["\\ud83d\\', '["\\ud83d\\u', '["\\ud83d\\ude"]', '["\\uD800\\u1x"]', "[\"a\"b]",
    "[\"\"\"\"]", "[`a`]", "[\u201ca\u201d]", '{"\\ud800":1}', '["\\u+041"]', '["\\u 041"]', '["\\u004\u0661"]', '["\\',
    # two meanings: documented as an error
    '{"a":1,"a":2}', '{"a":1,"b":2,"a":3}', '{"a":1,"\\u0061":2}', '{"b":{"a":1,"a":1}}', '{"":0,"":0}',
    # deeper than 64
    "[" * 65 + "]" * 65, '{"a":' * 65 + "0" + "}" * 65, "[" * 100_000, '[{"":' * 50_000, "[" * 500 + "]" * 500,
]
for code in range(32):  # every control character: escaped it is text, raw it is none
    YES.append(f'["\\u{code:04x}"]')
    NO.append(f'["{chr(code)}"]')
NO_BYTES = [
    b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"\xfe\xff\x00{\x00}", '{"a":"\u4f60"}'.encode("utf-16"), '["\u00e9"]'.encode("latin-1"), '["\u4f60"]'.encode("gbk"),
    b'["\x80"]', b'["\xbf"]', b'["\xc0\x80"]', b'["\xc0\xaf"]', b'["\xc1\xbf"]', b'["\xe0\x80\xaf"]', b'["\xf0\x80\x80\xaf"]', b'["\xf8\x88\x80\x80\x80"]',
    b'["\xfc\x83\xbf\xbf\xbf\xbf"]', b'["\xed\xa0\x80"]', b'["\xed\xbf\xbf"]', b'["\xed\xa0\xbd\xed\xb8\x80"]', b'["\xf4\x90\x80\x80"]', b'["\xf5\x80\x80\x80"]',
    b'["\xe4\xbd"]', b'["\xf0\x9f\x98"]', b'["\xe4"]', b'["\xe4\xbdx"]', b'["\xff"]', b'["\xfe"]', b"\xe5", b"[\xff]", b"[1]\xff", b"[1]\x00", b"\x00", b"\x00[]", b"{}\x00", b"{\x00}",
    b'{"\xff":1}', b'[1\xe5]', b'[1e1\xe5]', b'[0\xe5]', b'["\\u\xe5"]', b'["\\\xe5"]', b"\xef\xbb\xbf", b"\xef\xbb",
]


def read_by_python(data):
    """Whether the json module of Python, told to be strict, takes it."""
    def refuse(text):
        raise ValueError(text)

    def integer(text):
        if math.isinf(float(text)):
            raise ValueError("beyond a double")
        return int(text)

    def unique(pairs):
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=refuse, parse_int=integer, object_pairs_hook=unique)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")  # no lone surrogate, no infinity
        return True
    except (ValueError, RecursionError):
        return False


ALL_TEXTS = [(t.encode(), True) for t in YES] + [(t.encode(), False) for t in NO] + [(b, False) for b in NO_BYTES]


def test_the_table_agrees_with_another_parser():
    """Another reader has the same verdicts, but for depth, which is a limit of ours."""
    assert len(YES) > 100 and len(NO) > 200
    for data, verdict in ALL_TEXTS:
        if data.count(b"[") + data.count(b"{") > 64:
            continue
        assert read_by_python(data) == verdict, data[:80]


@pytest.mark.parametrize("path", list(BODIES))
def test_j2_every_class_of_json(server, path):
    """As a whole body, and as the value of a field in a body that is right without it."""
    right = json.dumps(BODIES[path]).encode()

    def check(data, is_json):
        message = check_refusal(post(server, path, data))["message"]  # even JSON: none of these is a request
        assert message.startswith(NO_JSON) != is_json, (data[:80], message)
        if data.strip() != data or not data:
            return
        depth = max(data.count(b"["), data.count(b"{"))
        inside = b'%s,"unknown":%s}' % (right[:-1], data)
        reply = post(server, path, inside)
        if depth <= 63 and (is_json or read_by_python(inside)):  # the latter: two halves that make a whole
            assert reply.status_code == 200, (data[:80], reply.text)
        else:
            check_refusal(reply, NO_JSON)

    with Watch(server):
        assert post(server, path, right).status_code == 200
        each(check, ALL_TEXTS)


def test_j2_where_the_fault_stands(server):
    """The message names the byte."""
    for body, words in [(b'{"messages": [}', ["14"]), (b'{"a": 1, "a": 2}', ['"a"']), (b'{"a": NaN}', ["6"]), (b"[" * 65, ["64"]), (b'{"a": 1} x', ["9"])]:
        check_refusal(post(server, CHAT, body), NO_JSON, *words)


def test_j2_numbers_mean_one_thing(server):
    """Integers may be written as 2.0 or 2e0; -0 is 0; what 64 bits do not hold is refused, not wrapped."""
    def prompt_tokens(text):
        reply = post(server, "/v1/completions", b'{"prompt":"a","temperature":0,"max_tokens":%s}' % text)
        return reply.json()["usage"]["completion_tokens"] if reply.status_code == 200 else reply.status_code
    assert prompt_tokens(b"2") == prompt_tokens(b"2.0") == prompt_tokens(b"2e0") == prompt_tokens(b"20e-1") == prompt_tokens(b"0.2E+1")
    for text in (b"2.5", b"-2", b"-0", b"0", b"18446744073709551618", b"4294967298", b"1e300", b'"2"', b"[2]"):
        assert prompt_tokens(text) == 400, text
    for text in (b"-0", b"-0.0", b"0e5", b"1e-400"):
        reply = post(server, "/v1/completions", b'{"prompt":"a","max_tokens":1,"temperature":%s}' % text)
        assert reply.status_code == 200, text


@pytest.mark.parametrize("depth", [65, 3000, 1_000_000])
def test_j1_depth(server, depth):
    """In the body, tools, a schema, a tool call's arguments, metadata and template arguments."""
    arrays, objects = b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth
    function = b'{"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f","parameters":%s}}]}'
    places = [b"%s", b'{"x":%s}', b'{"messages":%s}', b'{"messages":[{"role":"user","content":%s}]}', b'{"messages":[],"metadata":%s}', b'{"tools":%s}', function,
              b'{"chat_template_kwargs":{"a":%s}}', b'{"response_format":{"type":"json_schema","json_schema":%s}}', b'{"stop":%s}', b'{"prompt":%s}', b'{"logit_bias":%s}']
    with Watch(server):
        for deep in (arrays, objects, b"[" * depth, b'{"a":' * depth):
            for place in places:
                begin = cpu_seconds(server)
                check_refusal(post(server, CHAT, place % deep), NO_JSON, "64")
                assert cpu_seconds(server) - begin < 20
        arguments = "[" * depth + "]" * depth
        turn = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]}
        check_refusal(post(server, CHAT, {"messages": SMALL + [turn]}), "arguments")


def test_j1_as_deep_as_allowed(server):
    """60 levels of metadata, of a tool's schema and of a call's arguments work."""
    deep = json.loads('{"a":' * 50 + "1" + "}" * 50)
    turn = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps(deep)}}]}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": deep}}}
    body = {"messages": SMALL + [turn, {"role": "tool", "tool_call_id": "1", "content": "b"}], "tools": [tool], "metadata": deep, "chat_template_kwargs": {"x": deep}, "max_tokens": 1}
    reply = post(server, CHAT, body)
    assert reply.status_code == 200, reply.text


def test_j3_bad_text_in_every_field(server):
    """Invalid UTF-8 and lone surrogates wherever a text may stand."""
    places = [b'{"messages":[{"role":"user","content":"%s"}]}', b'{"messages":[{"role":"%s","content":"a"}]}', b'{"model":"%s"}', b'{"user":"%s"}', b'{"stop":"%s"}', b'{"%s":1}',
              b'{"request_id":"%s"}', b'{"prompt":"%s"}', b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"%s"}}]}]}']
    with Watch(server):
        each(lambda text: check_refusal(post(server, CHAT, text), NO_JSON), [
            (place % bad,) for place in places for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe4\xbd", b"\\ud83d", b"\\ude00", b"\\ud83d\\ud83d", "\u4f60".encode("gbk"))])


def test_j3_odd_text_is_taken_and_comes_back(server):
    """NUL, U+FFFD, private and unassigned characters, direction marks: text like any other, in prompts, names, stops and echoes."""
    texts = ["\u0000", "a\u0000b", "\ufffd", "\ufffe\uffff", "\U0010ffff", "\U0001f680" * 20, "\u202e\u200b\u2060", "\x7f\x1b[2J", "\ufeff", "e\u0301" * 30, "\u1112\u1161\u11ab", "\ue000", "\r\n\t"]
    with Watch(server):
        for text in texts:
            reply = post(server, CHAT, {"messages": ask(text), "max_tokens": 3, "stream": True, "stop": [text]})
            assert reply.status_code == 200 and reply.text.endswith("data: [DONE]\n\n"), reply.text
            for event in reply.text.split("\n\n")[:-2]:
                json.loads(event.removeprefix("data: "))
            echo = post(server, "/v1/completions", {"prompt": text, "echo": True, "max_tokens": 1})
            assert echo.status_code == 200 and echo.json()["choices"][0]["text"].startswith(text), echo.text
            ids = post(server, "/tokenize", {"prompt": text, "add_special_tokens": False})
            assert ids.status_code == 200


def test_j3_a_character_cut_by_max_tokens(server):
    """A character of several tokens that max_tokens cuts becomes U+FFFD; no event is torn, and stream and reply agree."""
    emoji = post(server, "/tokenize", {"prompt": "\U0001f680", "add_special_tokens": False}).json()["tokens"]
    assert len(emoji) > 1, "the tokenizer has this character whole; choose another"
    bias = {str(emoji[-2]): 100}  # the same byte again and again: never a whole character
    for count in (1, 2, 3):
        body = {"prompt": "a", "max_tokens": count, "temperature": 0, "logit_bias": bias, "ignore_eos": True}
        text = post(server, "/v1/completions", body).json()["choices"][0]["text"]
        assert text == "\ufffd" * count
        reply = post(server, "/v1/completions", {**body, "stream": True})
        events = [json.loads(e.removeprefix("data: ")) for e in reply.text.split("\n\n")[:-2]]
        assert "".join(e["choices"][0]["text"] for e in events) == text


def test_j4_large(server):
    """A million unknown fields, a million entries, a hundred thousand messages, one long text, a body beyond the limit."""
    million = b",".join(b'"f%d":0' % i for i in range(1_000_000))
    cases = [
        (b'{"messages":[],%s}' % million, 400), (b'{"messages":[],"metadata":{%s}}' % million, 400),
        (b'{"messages":[%s]}' % b",".join([b'{"role":"user","content":"a"}'] * 100_000), 400),
        (b'{"messages":[{"role":"user","content":"%s"}]}' % (b"a" * (30 << 20)), 400), (b'{"prompt":[%s]}' % b",".join([b"1"] * 900_000), 400),
        (b'{"stop":[%s]}' % b",".join([b'"a"'] * 900_000), 400), (b'{"a":"%s"}' % (b"\\u0041" * (5 << 20)), 400), (b"[" + b"[]," * (8 << 20), 400), (b" " * (30 << 20), 400),
        (b'{"a":"%s"}' % (b"x" * (50 << 20)), 413),
    ]
    with Watch(server):
        for body, status in cases:
            begin = cpu_seconds(server)
            try:
                reply = post(server, CHAT, body)
            except (ConnectionError, OSError, Exception) as fault:  # 413 closes while the client still sends
                assert status == 413 and "Error" in type(fault).__name__, (body[:40], fault)
                continue
            check_refusal(reply, status=status)
            assert cpu_seconds(server) - begin < 60, body[:40]


def test_j4_many_unknown_fields_are_ignored(server):
    with Watch(server):
        reply = post(server, CHAT, {**BODIES[CHAT], **{f"f{i}": 0 for i in range(100_000)}})
        assert reply.status_code == 200 and len(reply.headers["x-fastdeploy-ignored"]) < 2000


UNITS = {"letters": "a", "spaces": " ", "newlines": "\n", "digits": "7", "two letters": "ab", "Chinese": "\u4f60", "signs": "!", "mixed": "a1!", "accents": "e\u0301", "emoji": "\U0001f680",
         "almost a control token": "<|im_en", "control tokens": "<|im_end|>", "underscores": "\u2581"}


@pytest.mark.parametrize("name", list(UNITS))
def test_j4_long_runs_are_tokenised_in_linear_time(server, name):
    """10 times the input takes at most 12 times the processor time; its clock ticks 100 times a second."""
    unit = UNITS[name]

    def seconds(size):
        begin = cpu_seconds(server)
        reply = post(server, "/tokenize", {"prompt": (unit * size)[:size]})
        assert reply.status_code == 200, reply.text
        return cpu_seconds(server) - begin
    small, large = min(seconds(20_000) for _ in range(3)), min(seconds(200_000) for _ in range(2))
    assert large < 12 * small + 0.2, (small, large)


def test_random_damage_to_a_right_body(server):
    """Bytes changed, cut and doubled in a body with every kind of field: a reply or a refusal."""
    body = json.dumps({"messages": ask("Compute 45 + 11.") + [{"role": "assistant", "content": "56"}, {"role": "user", "content": [{"type": "text", "text": "and \u4f60?"}]}],
                       "temperature": 0.5, "stop": ["x"], "logit_bias": {"5": 1}, "max_tokens": 2, "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
                       "stream": False, "seed": 1, **thinking(False)}).encode()
    rng = random.Random(7)
    damaged = []
    for _ in range(1500):
        data = bytearray(body)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at:at + rng.randint(1, 9)]
            elif kind == 2:
                data[at:at] = data[at:at + rng.randint(1, 9)]
            else:
                data[at:at] = rng.choice([b"\\", b'"', b"{", b"]", b"0", b"-", b"\\ud800", b"\x00", b"null", b"e9"])
        damaged.append((bytes(data),))

    def check(data):
        reply = post(server, CHAT, data)
        if reply.status_code != 200:
            check_refusal(reply)
    with Watch(server):
        each(check, damaged)
