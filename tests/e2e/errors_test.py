"""Broken input gets its error, in OpenAI's shape and with the right status, and the next request works."""

import base64
import json
import re
import socket

import pytest

from conftest import EVAL, ROOT, ask, image_part, thinking
from png_file import png

PICTURE = EVAL / "media" / "describe-000-0.png"


def post(server, body, path="/v1/chat/completions", **keywords):
    if isinstance(body, (str, bytes)):
        return server.http.post(path, content=body, headers={"Content-Type": "application/json"}, **keywords)
    return server.http.post(path, json=body, **keywords)


def check_error(server, response, status, *words):
    """The response is an OpenAI error that says all of words, and the server still answers."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    for word in words:
        assert word in error["message"], error["message"]
    assert not re.search(r"0x[0-9a-f]{6}", error["message"]) and str(ROOT) not in error["message"]
    reply = post(server, {"messages": ask("Compute 45 + 11."), "temperature": 0, **thinking(False)})
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"] == "56"
    return error


def chat_body(**fields):
    return {"messages": ask("Compute 45 + 11."), "temperature": 0, **fields}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"3", b'"text"', b'{"messages": [}', b'{"messages": []} x',
                                  b"\xff\xfe{}", b"{'messages': []}", b'{"a": NaN}', b"[" * 3000 + b"]" * 3000,
                                  b'{"messages": [], "messages": []}', b'{"a": "\xc3\x28"}', b'\xef\xbb\xbf{}', b'{"a": 1e999}'])
def test_bad_json(server, body):
    error = check_error(server, post(server, body), 400)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("messages, words", [
    (None, ["messages"]),
    ([], ["messages"]),
    ("hello", ["messages"]),
    ({"role": "user"}, ["messages"]),
    ([3], ["messages[0]"]),
    ([{}], ["role"]),
    ([{"role": "emperor", "content": "hello"}], ["role", "emperor"]),
    ([{"role": 7, "content": "hello"}], ["role"]),
    ([{"role": "user"}], ["content"]),
    ([{"role": "user", "content": 5}], ["content"]),
    ([{"role": "user", "content": [{"type": "smell", "smell": "x"}]}], ["smell"]),
    ([{"role": "user", "content": [{"text": "x"}]}], ["type"]),
    ([{"role": "user", "content": [{"type": "text"}]}], ["text"]),
    ([{"role": "user", "content": [{"type": "image_url"}]}], ["image_url"]),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 4}}]}], ["url"]),
])
def test_bad_messages(server, messages, words):
    body = {} if messages is None else {"messages": messages}
    check_error(server, post(server, body), 400, *words)


@pytest.mark.parametrize("field, value", [
    ("temperature", "hot"), ("temperature", -0.1), ("temperature", True), ("top_p", 1.5), ("top_p", -1), ("top_k", -2), ("top_k", 1.5),
    ("min_p", 2), ("max_tokens", 0), ("max_tokens", -5), ("max_tokens", "many"), ("max_completion_tokens", 2.5), ("n", 0),
    ("n", 129), ("n", 10**9), ("n", "2"), ("seed", "x"), ("seed", 2**70), ("stream", "yes"), ("stop", 5), ("stop", [1]),
    ("stop", ["x"] * 17), ("stop", ["y" * 1025]), ("stop_token_ids", "a"), ("stop_token_ids", [-1]), ("stop_token_ids", [1] * 129),
    ("stream_options", {"include_usage": True}), ("ignore_eos", "no"), ("model", 5), ("tools", 5), ("tools", [{}]),
    ("chat_template_kwargs", []), ("chat_template_kwargs", {"messages": []}), ("user", 5)])
def test_bad_fields(server, field, value):
    response = post(server, chat_body(**{"temperature": 0, field: value}))
    if field == "user" and response.status_code == 200:
        return  # a field without effect may be left unchecked
    error = check_error(server, response, 400, field.split("_kwargs")[0])
    assert error["type"] == "invalid_request_error"
    assert error["param"] is not None and error["param"].startswith(field)


@pytest.mark.parametrize("fields", [{"response_format": {"type": "json_object"}},
                                    {"guided_regex": "a+"}, {"use_beam_search": True}])
def test_what_is_still_to_come_is_refused_by_name(server, fields):
    response = post(server, chat_body(**fields))
    assert response.status_code != 500
    if response.status_code != 200:
        check_error(server, response, response.status_code, next(iter(fields)))
        return
    # It works: then it must not be ignored. The replies with and without it must differ.
    plain = post(server, chat_body()).json()["choices"][0]
    assert response.json()["choices"][0] != plain


def test_prompt_too_long(server):
    text = "rocket " * 6000
    error = check_error(server, post(server, {"messages": ask(text)}), 400, "4096")
    assert error["code"] == "context_length_exceeded"
    numbers = [int(w) for w in "".join(c if c.isdigit() else " " for c in error["message"]).split()]
    assert any(n > 4096 for n in numbers), "the length of the prompt must be told: " + error["message"]
    response = post(server, {"prompt": text, "max_tokens": 4}, "/v1/completions")
    check_error(server, response, 400, "4096")


def test_max_tokens_beyond_the_model(server):
    response = post(server, chat_body(max_tokens=100000))
    if response.status_code != 200:  # FastDeploy: cut to what is left; OpenAI: refused
        check_error(server, response, 400, "max_tokens", "4096")


def data_url_messages(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]}]


PNG_BYTES = PICTURE.read_bytes()


@pytest.mark.parametrize("name, data, words", [
    ("truncated PNG", PNG_BYTES[:len(PNG_BYTES) // 2], []),
    ("30000 x 30000", png(30000, 30000), ["30000"]),
    ("20000 x 10", png(20000, 10), ["20000"]),
    ("0 x 0", png(0, 0), []),
    ("empty", b"", []),
    ("text", b"hello world", []),
    ("PNG signature alone", PNG_BYTES[:8], []),
    ("truncated JPEG", (EVAL / "media" / "color_of-001-0.jpg").read_bytes()[:100], []),
    ("ratio 201", (ROOT / "tests/golden/preprocess/images/ratio_201.png").read_bytes(), ["201"]),
    ("WebP header", b"RIFF\x10\x00\x00\x00WEBPVP8 ", []),
    ("GIF header", b"GIF89a\xff\xff\xff\xff\x00\x00\x00", []),
])
def test_bad_pictures(server, name, data, words):
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    response = post(server, {"messages": data_url_messages(url)})
    assert response.status_code in (400, 413, 415), response.text
    check_error(server, response, response.status_code, *words)


@pytest.mark.parametrize("url, words", [
    ("data:image/png;base64,@@@@!!!!", ["base64"]),
    ("data:image/png;base64,abc$", ["base64"]),
    ("data:", []),
    ("", []),
    ("file:///etc/passwd", []),
    ("http://127.0.0.1:1/a.png", []),
    ("https://no-such-host.invalid/a.png", ["public address"]),
    ("ftp://example.com/a.png", []),
    ("/etc/passwd", []),
    ("javascript:alert(1)", []),
])
def test_bad_urls(server, url, words):
    response = post(server, {"messages": data_url_messages(url)})
    assert response.status_code in (400, 501), response.text
    error = check_error(server, response, response.status_code, *words)
    assert "passwd" not in error["message"] and "root:" not in error["message"]


def test_video_is_still_to_come(server):
    part = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    response = post(server, {"messages": [{"role": "user", "content": [part]}]})
    assert response.status_code in (400, 501)
    check_error(server, response, response.status_code, "video")


def test_too_many_pictures(start_server):
    server = start_server()  # FastDeploy's default: one picture a request
    messages = ask("What?", PICTURE, PICTURE)
    check_error(server, post(server, {"messages": messages}), 400, "hold 2 pictures", "at most 1", "--limit-mm-per-prompt")


def test_unknown_model(start_server):
    server = start_server("--served-model-name", "tiny")
    error = check_error(server, post(server, chat_body(model="gpt-9")), 404, "gpt-9", "tiny")
    assert error["code"] == "model_not_found"
    assert post(server, chat_body(model="tiny")).json()["model"] == "tiny"
    assert post(server, chat_body(model="default")).status_code == 200
    assert [m.id for m in server.client.models.list()] == ["tiny"]


@pytest.mark.parametrize("method, path, status", [("GET", "/v1/chat/completions", 405), ("POST", "/health", 405),
                                                  ("POST", "/v1/nothing", 404), ("GET", "/", 404), ("GET", "/v1/models/../x", 404),
                                                  ("DELETE", "/v1/models", 405), ("GET", "/%2e%2e/etc/passwd", 404)])
def test_routes(server, method, path, status):
    response = server.http.request(method, path)
    assert response.status_code in (status, 404), response.text


def raw(server, data, read=True):
    """What the server answers to these bytes before it closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        answer = b""
        try:
            while part := s.recv(65536):
                answer += part
        except OSError:
            pass
    return answer


def test_http_that_is_none(server):
    for data in (b"hello\r\n\r\n", b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nHost: "
                 b"127.0.0.1\r\nContent-Length: -5\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                 b"Content-Length: 99999999999999999999999\r\n\r\n"):
        answer = raw(server, data)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), (data, answer)
    assert post(server, chat_body()).status_code == 200


def test_chunk_sizes(server):
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    for chunk in (b"-2\r\nab\r\n0\r\n\r\n", b"ffffffffffffffff\r\nab\r\n", b"zz\r\n"):
        answer = raw(server, head + chunk)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), (chunk, answer)
    body = json.dumps(chat_body(**thinking(False))).encode()
    good = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]) for i in range(0, len(body), 7)) + b"0\r\n\r\n"
    answer = raw_keep_open(server, head + good)
    assert answer.startswith(b"HTTP/1.1 200"), answer


def raw_keep_open(server, data):
    """The beginning of the answer, without closing our side first."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
        s.sendall(data)
        return s.recv(65536)


def test_two_lengths(server):
    answer = raw(server, b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
                 b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 0, answer


def test_no_log_line_is_forged(server):
    server.http.get("/v1/x%0d%0aforged:line")
    post(server, chat_body(model="a\r\nforged:line", user="b\r\nforged:line"))
    assert "\nforged:line" not in server.log_text()


def test_body_and_header_limits(start_server):
    server = start_server("--max-body-bytes", "20000", "--max-header-bytes", "2000", "--header-timeout", "1", "--body-timeout", "1")
    check_error(server, post(server, chat_body(user="x" * 30000)), 413, "20000", "--max-body-bytes")
    response = server.http.get("/health", headers={"X-Long": "y" * 5000})
    assert response.status_code == 431
    answer = raw(server, b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    # Slow clients are cut; others are served meanwhile.
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow, \
            socket.create_connection(("127.0.0.1", server.port), timeout=10) as body:
        slow.sendall(b"GET /health HT")
        body.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n{")
        assert post(server, chat_body()).status_code == 200
        for s in (slow, body):
            answer = b""
            while part := s.recv(65536):
                answer += part
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408"), answer


def test_wrong_host_header(server):
    """A web page that had its name point to 127.0.0.1 must not reach the server."""
    assert server.http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert server.http.get("/v1/models", headers={"Host": f"localhost:{server.port}"}).status_code == 200


def test_api_key(start_server):
    server = start_server("--api-key", "right")
    assert server.http.get("/health").status_code == 200
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}, {"Authorization": "right"}):
        response = server.http.get("/v1/models", headers=header)
        assert response.status_code == 401
        assert response.json()["error"]["message"]
    assert server.http.get("/v1/models", headers={"Authorization": "Bearer right"}).status_code == 200
    assert "right" not in server.log_text()


def test_picture_for_a_text_model(start_server, tmp_path):
    """A text-only ERNIE of random weights: pictures are refused, text is answered."""
    source = ROOT / "tests/golden/models/ernie4_5_vl_moe"
    config = json.loads((ROOT / "tests/golden/models/ernie4_5/config.json").read_text())
    config["vocab_size"] = 1540
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.model", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_bytes((ROOT / "tests/golden/templates/ernie_text.jinja").read_bytes())
    server = start_server("--load-format", "dummy", model=tmp_path)
    response = post(server, {"messages": ask("What?", PICTURE)})
    assert response.status_code == 400
    assert "picture" in response.json()["error"]["message"] or "image" in response.json()["error"]["message"]
    reply = post(server, {"messages": ask("What?"), "max_tokens": 5})
    assert reply.status_code == 200
    assert reply.json()["usage"]["completion_tokens"] >= 1
    part = image_part(PICTURE)
    assert post(server, {"messages": [{"role": "user", "content": [part]}]}).status_code == 400
