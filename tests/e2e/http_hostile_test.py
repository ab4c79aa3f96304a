"""Hostile HTTP and JSON over raw sockets: the right status, bounded time and memory, and a server that goes on.

Every test ends with the same question: same process, /health 200, a right answer, memory near where it was.
"""

import json
import os
import re
import socket
import struct
import time

import pytest

from conftest import ask, thinking

HOST = b"Host: 127.0.0.1\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
# What a connection, a thread's heap and a parsed body may leave behind; a leak of the inputs would be far more.
SLACK_BYTES = 96 << 20


def memory_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096


def open_files(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


@pytest.fixture
def target(server):
    ask_for_sum(server)
    before, files = memory_bytes(server.process.pid), open_files(server)
    yield server
    assert server.process.poll() is None, server.log_text()
    assert server.http.get("/health").status_code == 200
    ask_for_sum(server)
    assert memory_bytes(server.process.pid) < before + SLACK_BYTES
    deadline = time.monotonic() + 20
    while open_files(server) > files + 4:
        assert time.monotonic() < deadline, "connections are left open"
        time.sleep(0.05)


def ask_for_sum(server):
    reply = server.http.post("/v1/chat/completions", json={"messages": ask("Compute 45 + 11."), "temperature": 0, **thinking(False)})
    assert reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"] == "56"


def connect(server, timeout=60):
    return socket.create_connection(("127.0.0.1", server.port), timeout=timeout)


def exchange(server, data, half_close=True):
    """All bytes the server answers before it closes."""
    answer = b""
    with connect(server) as s:
        try:
            for i in range(0, len(data), 1 << 20):
                s.sendall(data[i:i + (1 << 20)])
            if half_close:
                s.shutdown(socket.SHUT_WR)
            while part := s.recv(65536):
                answer += part
        except OSError:
            pass
    return answer


def statuses(answer):
    """The status codes of the responses in answer, which are our own and well framed."""
    codes = []
    while answer:
        head, separator, rest = answer.partition(b"\r\n\r\n")
        assert separator and head.startswith(b"HTTP/1.1 "), answer[:200]
        codes.append(int(head[9:12]))
        length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        size = int(length[0].split(b":")[1]) if length else 0
        assert len(rest) >= size
        answer = rest[size:]
    return codes


@pytest.mark.parametrize("name, data, status, flag", [
    ("one header of 1 MiB", b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n", 431, b"--max-header-bytes"),
    ("one header of 100 MiB", b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"y" * (100 << 20) + b"\r\n\r\n", 431, b"--max-header-bytes"),
    ("100,000 headers", b"GET /health HTTP/1.1\r\n" + HOST + b"".join(b"H%d: x\r\n" % i for i in range(100_000)) + b"\r\n", 431, b"--max-headers"),
    ("101 headers", b"GET /health HTTP/1.1\r\n" + HOST + b"".join(b"H%d: x\r\n" % i for i in range(100)) + b"\r\n", 431, b"--max-headers"),
    ("a request line of 1 MiB", b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, b"--max-request-line-bytes"),
    ("a request line of 8,193 bytes", b"GET /" + b"a" * 8179 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, b"--max-request-line-bytes"),
])
def test_h1_huge_headers(target, name, data, status, flag):
    answer = exchange(target, data, half_close=False)
    if not answer and len(data) > 50 << 20:
        return  # still sending when the connection was closed: its own kernel threw the answer away
    assert statuses(answer) == [status] and flag in answer, answer[:300]


def test_h1_just_below_the_limits(target):
    line = b"GET /" + b"a" * 8178 + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    assert statuses(exchange(target, line, half_close=False)) == [404]
    headers = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n" + b"".join(b"H%d: x\r\n" % i for i in range(98)) + b"\r\n"
    assert statuses(exchange(target, headers, half_close=False)) == [200]


def test_h2_slowloris(start_server):
    server = start_server("--header-timeout", "2", "--body-timeout", "2", "--keep-alive-timeout", "4", "--max-connections", "700")
    slow = []
    for i in range(400):
        s = connect(server)
        s.sendall(b"GET /health HTTP/1.1\r\nX-A: " if i % 2 else CHAT + b"Content-Length: 1000\r\n\r\n{")
        slow.append(s)
    begin = time.monotonic()
    while time.monotonic() - begin < 3:
        ask_for_sum(server)  # others are served meanwhile
        for s in slow:
            try:
                s.send(b"a")
            except OSError:
                pass
        time.sleep(0.3)
    ended = 0
    for s in slow:
        s.settimeout(20)
        try:
            answer = b""
            while part := s.recv(65536):
                answer += part
            assert answer == b"" or statuses(answer) == [408], answer
            ended += 1
        except ConnectionError:
            ended += 1
        s.close()
    assert ended == len(slow)
    ask_for_sum(server)


BODY = json.dumps({"messages": ask("Compute 45 + 11."), "temperature": 0, **thinking(False)}).encode()
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = CHAT + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("chunks", [
    b"-2\r\nab\r\n0\r\n\r\n", b"ffffffffffffffff\r\nab\r\n0\r\n\r\n", b"ffffffffffffffffff\r\nab\r\n", b"0x5\r\nabcde\r\n0\r\n\r\n",
    b" 5\r\nabcde\r\n0\r\n\r\n", b"5 \r\nabcde\r\n0\r\n\r\n", b"\r\n\r\n", b"zz\r\n", b"5\r\nabcdeXX0\r\n\r\n", b"+5\r\nabcde\r\n0\r\n\r\n",
    b"5;" + b"x" * (1 << 20) + b"\r\nabcde\r\n0\r\n\r\n", b"5\nabcde\n0\n\n", b"5;a\x00\r\nabcde\r\n", b"5;a\nabcde\r\n",
    b"0\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n", b"0\r\nX: a\n\r\n", b"0\r\n X: a\r\n\r\n",
])
def test_h3_bad_chunks(target, chunks):
    answer = exchange(target, CHUNKED + chunks + SMUGGLED, half_close=False)
    assert statuses(answer) == [400], (chunks[:40], answer[:300])


@pytest.mark.parametrize("size", [b"2000001", b"7fffffffffffffff"])
def test_h3_a_chunk_beyond_the_limit(target, size):
    answer = exchange(target, CHUNKED + size + b"\r\nab", half_close=False)
    assert statuses(answer) == [413] and b"--max-body-bytes" in answer


def test_h3_a_missing_last_chunk_is_no_request(target):
    answer = exchange(target, CHUNKED + b"%x\r\n%s\r\n" % (len(BODY), BODY))
    assert answer == b"" or statuses(answer) == [400]


def test_h3_many_chunks_of_one_byte(target):
    chunks = b"1\r\n \r\n" * 50_000 + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    answer = exchange(target, CHUNKED + chunks + b"GET /nowhere HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", half_close=False)
    assert statuses(answer) == [200, 404]
    begin = time.monotonic()
    answer = exchange(target, CHUNKED + b"1\r\n \r\n" * 2_000_000 + b"0\r\n\r\n", half_close=False)
    assert (answer == b"" or statuses(answer) == [400] and b"--max-chunk-overhead-bytes" in answer) and time.monotonic() - begin < 30


@pytest.mark.parametrize("headers, body", [
    (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"abcdef"),
    (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding: identity, chunked, gzip\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n"),
    (b"Content-Length: -1\r\n", b""), (b"Content-Length: 9223372036854775808\r\n", b""), (b"Content-Length: 18446744073709551621\r\n", b"abcde"),
    (b"Content-Length: +5\r\n", b"abcde"), (b"Content-Length: 5, 5\r\n", b"abcde"), (b"Content-Length: 0x5\r\n", b"abcde"),
    (b"Content-Length: 5 5\r\n", b"abcde"), (b"X: a\n", b""), (b"X: a\x00b\r\n", b""),
    (b"Host: 127.0.0.1\r\n", b""), (b"X\r\n", b""), (b": x\r\n", b""),
    (b"Bad Name: x\r\n", b""),
    (b"X: a\r\n b\r\n", b""), (b"X: a\r\n\tTransfer-Encoding: chunked\r\n", b""), (b" X: a\r\n", b""), (b"X\t: a\r\n", b""), (b"X: a\rY: b\r\n", b""),
    (b"X: a\x01\r\n", b""), (b"X: a\x7f\r\n", b""), (b"X\x00: a\r\n", b""), (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"abcde"),
    (b"Content-Length: 5\nContent-Length: 0\r\n", b"abcde"), (b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
])
def test_h4_nothing_is_smuggled(target, headers, body):
    """What two readers could frame differently is refused, or framed in the one way that hides no request."""
    answer = exchange(target, CHAT + headers + b"\r\n" + body + SMUGGLED, half_close=False)
    assert statuses(answer) == [400] and b"smuggled" not in answer, (headers, answer)


def test_h5_compressed_bodies(target):
    for coding in (b"gzip", b"br", b"zstd", b"deflate, gzip"):
        answer = exchange(target, CHAT + b"Content-Encoding: " + coding + b"\r\nContent-Length: 5\r\n\r\nabcde")
        assert statuses(answer) == [415]


def test_h5_a_body_of_another_type(target):
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Connection: close\r\nContent-Length: %d\r\n" % len(BODY)
    for kind in (b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x"):
        answer = exchange(target, head + b"Content-Type: " + kind + b"\r\n\r\n" + BODY, half_close=False)
        assert statuses(answer) == [415] and b"Content-Type: application/json" in answer
    for kind in (b"", b"Content-Type: Application/JSON; charset=utf-8\r\n"):
        assert statuses(exchange(target, head + kind + b"\r\n" + BODY, half_close=False)) == [200]
    answer = exchange(target, CHAT + b"Connection: close\r\n\r\n", half_close=False)
    assert statuses(answer) == [411] and b"Content-Length" in answer


def test_h6_no_header_and_no_line_is_forged(target):
    for path in ("/v1/x%0d%0aX-Forged:%201", "/v1/models/%0d%0aX-Forged:%201"):
        assert "x-forged" not in target.http.get(path).headers
    for header in (b"X-Request-Id: a\rX-Forged: 1\r\n", b"X-Request-Id: a%0d%0aX-Forged: 1\r\n", b"Origin: http://localhost\rX-Forged: 1\r\n"):
        answer = exchange(target, b"GET /v1/models HTTP/1.1\r\n" + HOST + header + b"Connection: close\r\n\r\n")
        assert b"\nx-forged" not in answer.lower() and b"\rx-forged" not in answer.lower(), answer
    for field in ("model", "user", "request_id"):
        reply = target.http.post("/v1/chat/completions", json={"messages": ask("x"), "max_tokens": 1, field: "a\r\nX-Forged: 1"})
        assert "x-forged" not in reply.headers
    assert "\nX-Forged" not in target.log_text() and "\r" not in target.log_text()


def test_h7_hosts_and_origins_of_web_pages(target):
    for header in (b"Host: evil.example\r\n", b"Host: 127.0.0.1.evil.example\r\n", HOST + b"Origin: http://evil.example\r\n", HOST + b"Origin: null\r\n"):
        answer = exchange(target, b"GET /v1/models HTTP/1.1\r\n" + header + b"Connection: close\r\n\r\n", half_close=False)
        assert statuses(answer) == [403] and b"access-control" not in answer.lower(), answer
    answer = exchange(target, b"GET http://evil.example/v1/models HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", half_close=False)
    assert statuses(answer) == [403]
    answer = exchange(target, b"OPTIONS /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n", half_close=False)
    assert b"access-control-allow-origin" not in answer.lower()


def test_pipelined_requests_are_answered_in_order(target):
    one = CHAT + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    answer = exchange(target, one + b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n" + one + b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", half_close=False)
    assert statuses(answer) == [200, 404, 200, 200]


def test_a_body_of_50_mb(target):
    begin = time.monotonic()
    answer = exchange(target, CHAT + b"Content-Length: %d\r\n\r\n" % (50 << 20) + b'{"a":"' + b"x" * (50 << 20), half_close=False)
    assert (answer == b"" or statuses(answer) == [413]) and time.monotonic() - begin < 30
    answer = exchange(target, CHUNKED + (b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 50, half_close=False)
    assert answer == b"" or statuses(answer) == [413]


def post(server, body, path="/v1/chat/completions"):
    return server.http.post(path, content=body, headers={"Content-Type": "application/json"})


def check_400(reply, body=b""):
    assert reply.status_code == 400, (body[:80], reply.text[:300])
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and len(error["message"]) < 2000
    assert not re.search(r"0x[0-9a-f]{6}", error["message"])


@pytest.mark.parametrize("depth", [65, 3000, 1_000_000])
def test_j1_deep_json(target, depth):
    arrays = b"[" * depth + b"]" * depth
    objects = b'{"a":' * depth + b"1" + b"}" * depth
    for deep in (arrays, objects):
        for place in (b'{"messages":%s}', b'{"messages":[],"metadata":%s}', b'{"tools":%s}', b'{"unknown":%s}', b"%s"):
            check_400(post(target, place % deep))
    arguments = "[" * depth + "]" * depth
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    if depth <= 3000:
        check_400(target.http.post("/v1/chat/completions", json={"messages": ask("a") + [{"role": "assistant", "tool_calls": calls}]}))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/v1/chat/completions/render"])
@pytest.mark.parametrize("body", [
    b"", b" ", b"null", b"true", b"[]", b"1", b'"a"', b"{", b"}", b"{}x", b"{}{}", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a":Infinity}',
    b'{"a":-Infinity}', b'{"a":1e999}', b'{"a":01}', b'{"a":.5}', b'{"a":1.}', b'{"a":+1}', b'{"a":0x1}', b"{'a':1}", b'{"a":1,}', b'{"a" 1}',
    b'{"a":"\x01"}', b'{"a":"\\x41"}', b'{"a":"\\ud83d"}', b'{"a":"\\ude00\\ud83d"}', b'{"a":"\\ud83dx"}', b'{"a":"\xff"}', b'{"a":"\xc0\xaf"}',
    b'{"a":"\xed\xa0\x80"}', b'{"a":"\xf5\x80\x80\x80"}', b'{"a":"\xe4\xbd"}', b'\xef\xbb\xbf{}', '{"a":"\u4f60"}'.encode("utf-16"), '{"a":"\u4f60"}'.encode("gbk"),
    b"{\x00}", b'{"a":1}\x00', b"/* c */{}", b'{"a":tru}', b'{"a":"b',
])
def test_j2_j3_what_is_no_json(target, path, body):
    check_400(post(target, body, path), body)


def test_j3_text_of_every_kind_is_taken(target):
    for text in ("\u0000", "\ufffd", "\U0001f680" * 20, "\u202e\u200b", "\x7f\x1b[2J", "\ufeff"):
        reply = target.http.post("/v1/chat/completions", json={"messages": ask(text), "max_tokens": 3, "stream": True})
        assert reply.status_code == 200 and reply.text.endswith("data: [DONE]\n\n")
        for event in reply.text.split("\n\n")[:-2]:
            json.loads(event.removeprefix("data: "))


def test_j4_many(target):
    begin = time.monotonic()
    body = b'{"messages":[],' + b",".join(b'"f%d":0' % i for i in range(500_000)) + b"}"
    check_400(post(target, body))
    check_400(post(target, b'{"messages":[],"metadata":{' + b",".join(b'"f%d":0' % i for i in range(1_000_000)) + b"}}"))
    check_400(post(target, json.dumps({"messages": [{"role": "user", "content": "a"}] * 100_000}).encode()))
    check_400(post(target, b'{"messages":[{"role":"user","content":"' + b"a" * (20 << 20) + b'"}]}'))
    assert time.monotonic() - begin < 120
    reply = post(target, json.dumps({"messages": ask("Hi"), "max_tokens": 1, **{f"f{i}": 0 for i in range(100_000)}}).encode())
    assert reply.status_code == 200 and len(reply.headers["x-fastdeploy-ignored"]) < 2000


def test_j4_the_tokenizer_is_linear(target):
    def seconds(size, unit):
        begin = time.monotonic()
        post(target, json.dumps({"prompt": (unit * size)[:size]}).encode(), "/tokenize")
        return time.monotonic() - begin
    for unit in ("a", " ", "ab", "\u4f60", "a1!"):
        small, large = min(seconds(20_000, unit) for _ in range(3)), min(seconds(200_000, unit) for _ in range(2))
        assert large < 12 * small + 0.5, (unit, small, large)


FLOATS = ["temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"]
INTEGERS = ["n", "max_tokens", "max_completion_tokens", "top_k", "seed", "min_tokens", "top_logprobs"]


@pytest.mark.parametrize("field", FLOATS + INTEGERS)
def test_absurd_numbers(target, field):
    for text in ("NaN", "Infinity", "-Infinity", "1e999"):
        check_400(post(target, b'{"messages":[{"role":"user","content":"a"}],"%s":%s}' % (field.encode(), text.encode())))
    for value in (-1, 0, 2**31, 2**63, -2**63, 10**30, 1.5, 1e308, 5e-324, -0.0, "1", True, [], {}, None, 999999):
        body = {"messages": ask("a"), "max_tokens": 1}
        body[field] = value
        reply = target.http.post("/v1/chat/completions", json=body)
        assert reply.status_code in (200, 400), (field, value, reply.text)
        if isinstance(value, (str, bool, list, dict)):
            assert reply.status_code == 400, (field, value)
        if reply.status_code == 400:
            assert field in reply.json()["error"]["message"], reply.text


@pytest.mark.parametrize("fields", [
    {"stop": ["x"] * 100_000}, {"stop": ""}, {"stop": [""]}, {"stop": "x" * (1 << 20)}, {"stop_token_ids": [-1]}, {"stop_token_ids": [2**31]},
    {"stop_token_ids": [10**6]}, {"n": 10**9}, {"best_of": 10**9}, {"logit_bias": {str(i): 1 for i in range(100_000)}}, {"max_tokens": 2**31},
    {"prompt_token_ids": []}, {"prompt_token_ids": [[]]}, {"prompt_token_ids": [-1]}, {"prompt_token_ids": [2**31]}, {"messages": None}, {"messages": []},
])
def test_absurd_fields(target, fields):
    check_400(target.http.post("/v1/chat/completions", json={"messages": ask("a"), "max_tokens": 1, **fields}))


def test_resets_and_half_open_connections(target):
    for data in (b"", b"G", CHAT, CHAT + b"Content-Length: 100\r\n\r\n{", CHAT + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY):
        for _ in range(20):
            s = connect(target)
            s.sendall(data)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()  # RST
