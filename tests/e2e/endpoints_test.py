"""Endpoints beside chat and completions, keys, origins, request ids, logs, the life of the process."""

import json
import re
import socket
import subprocess
import threading
import time

import httpx
import pytest

from conftest import BINARY, EVAL, MODEL, ROOT, Server, ask, free_port, image_part, thinking

PICTURE = EVAL / "media" / "describe-000-0.png"
SOURCES = ROOT / "src/server/openai"
READERS = [SOURCES, ROOT / "src/server/messages", ROOT / "src/server/responses"]


def chat(**fields):
    return {"messages": ask("Compute 45 + 11."), "temperature": 0, **thinking(False), **fields}


def test_model_version_load_and_openapi(server):
    model = server.http.get("/v1/models").json()["data"][0]["id"]
    assert server.http.get(f"/v1/models/{model}").json()["id"] == model
    assert server.http.get("/v1/models/other").json()["error"]["code"] == "model_not_found"
    version = server.http.get("/version").json()["version"]
    assert version in subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout
    load = server.http.get("/load").json()
    assert load["server_load"] == 0 and any(r["path"] == "/v1/chat/completions" for r in load["routes"])
    api = server.http.get("/openapi.json").json()
    assert set(api["paths"]) == {r["path"] for r in load["routes"]}
    for path, item in api["paths"].items():
        for method in item:
            if method == "options":  # 403: admin endpoints without an admin key; 404: /metrics, on its own port here
                assert server.http.request(method.upper(), path.replace("{model}", model).replace("{id}", "resp_1")).status_code in (204, 403, 404), path


def test_known_fields_are_the_fields_that_are_read():
    """The table of request fields and the readers name the same fields, but for those that are taken without effect."""
    table = (SOURCES / "request_schema.cc").read_text()
    known = set(re.findall(r'^    \{"(\w+)", FieldType', table, re.M))
    read, named = set(), set()  # named: as a whole literal, for readers that keep a field's name in a variable
    for source in (path for folder in READERS for path in folder.glob("*.cc")):
        if source.name in ("request_schema.cc",) or source.name.endswith("_test.cc"):
            continue
        text = source.read_text()
        named |= set(re.findall(r'"(\w+)"', text))
        read |= set(re.findall(r'Read(?:Number|Integer|Bool|String|Object|Array)\(\s*(?:body|given),\s*"(\w+)"', text))
        read |= set(re.findall(r'\b(?:body|given)\.Find\((?:field = )?"(\w+)"\)', text))
        read |= set(re.findall(r'^    \{"(\w+)", (?:nullptr|Is\w+|\[\])', text, re.M))  # kComing
        read |= set(re.findall(r'^    \{"(\w+)",$', text, re.M))
    assert read - known == set(), "read but not in request_schema.cc: unknown to /openapi.json and warned about"
    assert known - read - named == {"prompt_cache_options", "prompt_cache_retention", "trace_context"}, \
        "in request_schema.cc but read by nobody: neither honoured nor warned about"


def test_shapes_of_fields_are_of_known_fields(server):
    """The ranges of /openapi.json stand in a table of their own; a line whose field is gone or renamed would have no effect."""
    shapes = (ROOT / "src/server/http/openapi_requests.cc").read_text()
    table = shapes[shapes.index("kShapes[]"):shapes.index("\n};", shapes.index("kShapes[]"))]
    named = set(re.findall(r'^    \{"(\w+)", "\w*",', table, re.M))
    schemas = server.http.get("/openapi.json").json()["components"]["schemas"]
    known = {field for name, schema in schemas.items() if name.endswith("Request") for field in schema["properties"]}
    assert len(named) > 60 and named - known == set()


def test_the_compatibility_page_says_what_the_program_does():
    result = subprocess.run(["python3", str(ROOT / "tools/compatibility.py"), "--check", BINARY], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_render_and_tokenize_agree_with_the_model(server):
    rendered = server.http.post("/v1/chat/completions/render", json=chat()).json()
    assert "Compute 45 + 11." in rendered["prompt"]
    assert rendered["prompt_tokens"] == len(rendered["token_ids"])
    usage = server.http.post("/v1/chat/completions", json=chat()).json()["usage"]
    assert usage["prompt_tokens"] == rendered["prompt_tokens"]
    tokens = server.http.post("/tokenize", json={"messages": ask("Compute 45 + 11."), **thinking(False)}).json()
    assert tokens["tokens"] == rendered["token_ids"] and tokens["count"] == len(tokens["tokens"])
    same = server.http.post("/v1/completions", json={"prompt": rendered["token_ids"], "temperature": 0, "max_tokens": 8}).json()
    assert "56" in same["choices"][0]["text"]


def test_render_a_picture(server):
    rendered = server.http.post("/v1/chat/completions/render", json={"messages": ask("What?", PICTURE)}).json()
    (media,) = rendered["media"]
    assert media["num_tokens"] == rendered["image_tokens"] > 0
    t, h, w = media["grid"]
    assert media["num_tokens"] == t * h * w // 4
    assert media["first_token"] + media["num_tokens"] <= rendered["prompt_tokens"]
    assert "base64" not in rendered["prompt"]


def test_tokenize_and_back(server):
    for text in ("Hello, world", "", "\u4f60\u597d \U0001f680", "a\nb"):
        reply = server.http.post("/tokenize", json={"prompt": text, "add_special_tokens": False, "return_token_strs": True})
        assert reply.status_code == 200, reply.text
        reply = reply.json()
        assert reply["count"] == len(reply["tokens"]) == len(reply["token_strs"])
        back = server.http.post("/detokenize", json={"tokens": reply["tokens"]}).json()
        assert back["prompt"].strip() == text.strip()


def test_head_and_options_and_405(server):
    get, head = server.http.get("/v1/models"), server.http.head("/v1/models")
    assert head.status_code == 200 and head.content == b"" and head.headers["content-length"] == str(len(get.content))
    options = server.http.options("/v1/chat/completions")
    assert options.status_code == 204 and "POST" in options.headers["allow"]
    for method, path in (("GET", "/v1/chat/completions"), ("PUT", "/health"), ("PATCH", "/tokenize"), ("DELETE", "/v1/models")):
        reply = server.http.request(method, path)
        assert reply.status_code == 405 and reply.json()["error"]["code"] == "method_not_allowed"
        assert method not in reply.headers["allow"].split(", ")


@pytest.mark.parametrize("path, near", [("/chat/completions", "/v1/chat/completions"), ("/v1/v1/models", "/v1/models"),
                                        ("/v1/chat/completions/", "/v1/chat/completions"), ("/healthz", "/health")])
def test_a_near_path_is_named(server, path, near):
    reply = server.http.get(path)
    assert reply.status_code == 404 and f"did you mean {near}?" in reply.json()["error"]["message"]


def test_unknown_fields(server, start_server):
    reply = server.http.post("/v1/chat/completions", json=chat(temprature=1, **{"x\r\ny": 2}))
    assert reply.status_code == 200 and reply.headers["x-fastdeploy-ignored"] == "temprature, x??y"
    assert "x-fastdeploy-ignored" not in server.http.post("/v1/chat/completions", json=chat()).headers
    with server.http.stream("POST", "/v1/chat/completions", json=chat(stream=True, temprature=1)) as stream:
        assert stream.headers["x-fastdeploy-ignored"] == "temprature"
        assert stream.read().endswith(b"data: [DONE]\n\n")
    strict = start_server("--strict-requests")
    reply = strict.http.post("/v1/chat/completions", json=chat(temprature=1))
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "temprature"
    assert "did you mean temperature?" in reply.json()["error"]["message"]
    assert strict.http.post("/v1/chat/completions", json=chat()).status_code == 200


def test_request_ids(server):
    for given, kept in (("abc-1.2:x_Y", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("a\tb", False), ("", False)):
        reply = server.http.get("/version", headers={"X-Request-Id": given})
        assert (reply.headers["x-request-id"] == given) == kept
        assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", reply.headers["x-request-id"])
    assert server.http.get("/nowhere").headers["x-request-id"] != server.http.get("/nowhere").headers["x-request-id"]


def test_keys_from_file_and_environment(start_server, tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text("# ours\nfirst-key\n\nsecond-key\n")
    server = start_server("--api-key-file", str(keys), "--api-key", "third-key", "--admin-key", "boss-key")
    for key in ("first-key", "second-key", "third-key", "boss-key"):
        assert server.http.get("/v1/models", headers={"X-Api-Key": key}).status_code == 200
        assert server.http.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    info = server.http.get("/config-info", headers={"X-Api-Key": "first-key"}).json()
    assert info["flags"]["api-key"] == "(set)" and info["flags"]["max-concurrency"] == "512"
    text = json.dumps(info) + server.log_text()
    assert not [key for key in ("first-key", "second-key", "third-key", "boss-key") if key in text]
    monkeypatch.setenv("FD_API_KEY", "fourth-key, fifth-key")
    server = start_server()
    assert server.http.get("/v1/models").status_code == 401
    assert server.http.get("/v1/models", headers={"X-Api-Key": "fifth-key"}).status_code == 200
    assert "fourth-key" not in server.log_text()


def test_nothing_is_open_without_a_key(start_server):
    """A1: the server's own routes, and paths that only look like its public ones."""
    server = start_server("--api-key", "right-key", "--admin-key", "boss-key")
    headers = {"Authorization": "Bearer right-key"}
    routes = server.http.get("/load", headers=headers).json()["routes"]
    public = {"/health", "/ping", "/readyz", "/livez", "/metrics"}
    wrong = ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}, {"Authorization": "right-key"},
             {"Api-Key": "right-key"}, {"Authorization": "Basic right-key"}, {"Cookie": "right-key"})
    for route in routes:
        for header in wrong:
            for method in route["methods"] + ["PUT"]:
                status = server.http.request(method, route["path"], headers=header).status_code
                assert (status in (200, 204, 405)) if route["path"] in public else status == 401, (route, header, method)
    for path in ("//v1/models", "/V1/models", "/v1/models;x", "/%2fv1/models", "/v1/models/", "/health/", "/metrics/x"):
        assert server.http.get(path).status_code == 401, path
    for path in ("/v1/pause", "/v1/abort_requests", "/v1/is_paused"):
        method = "GET" if path.endswith("paused") else "POST"
        assert server.http.request(method, path, headers=headers).status_code == 401
    open_server = start_server()
    assert open_server.http.post("/v1/pause").status_code == 403
    assert open_server.http.post("/v1/abort_requests", json={"abort_all": True}).status_code == 403


def test_origins(start_server):
    origin = "https://chat.example.org"
    server = start_server("--api-key", "k", "--allowed-origins", f'["{origin}"]')
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}
    reply = server.http.options("/v1/chat/completions", headers=asked)
    assert reply.status_code == 204 and reply.headers["access-control-allow-origin"] == origin
    assert reply.headers["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]
    assert "access-control-allow-credentials" not in reply.headers
    reply = server.http.get("/v1/models", headers={"Origin": origin, "X-Api-Key": "k"})
    assert reply.headers["access-control-allow-origin"] == origin and reply.headers["vary"] == "Origin"
    reply = server.http.options("/v1/chat/completions", headers={**asked, "Origin": "https://evil.example"})
    assert reply.status_code == 401 and "access-control-allow-origin" not in reply.headers
    assert "access-control-allow-origin" not in start_server().http.get("/v1/models", headers={"Origin": "http://localhost"}).headers
    refused = subprocess.run([BINARY, "serve", MODEL, "--allowed-origins", "*", "--allow-credentials"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "--allowed-origins" in refused.stderr


def endless(server, number, results, headers=None, **fields):
    body = {"prompt": "a", "ignore_eos": True, "max_tokens": 3000, "request_id": f"r{number}", **fields}
    results[number] = server.http.post("/v1/completions", json=body, headers=headers or {})


def test_abort_pause_resume(start_server):
    server = start_server("--admin-key", "boss", "--max-model-len", "4096")
    admin = {"Authorization": "Bearer boss"}
    results = {}
    threads = [threading.Thread(target=endless, args=(server, i, results)) for i in range(3)]
    for thread in threads:
        thread.start()
    server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 3, 30)
    reply = server.http.post("/v1/abort_requests", json={"req_ids": ["cmpl-r1", "nobody"]}, headers=admin).json()
    assert reply == {"aborted": 1, "req_ids": ["cmpl-r1"], "not_found": ["nobody"]}
    threads[1].join()
    assert results[1].status_code == 400 and results[1].json()["error"]["code"] == "request_aborted"
    assert server.http.post("/v1/pause", headers=admin).json() == {"is_paused": True}
    refused = server.http.post("/v1/chat/completions", json=chat())
    assert refused.status_code == 503 and "retry-after" in refused.headers and "paused" in refused.json()["error"]["message"]
    assert server.http.get("/health").status_code == 200 and server.http.get("/v1/is_paused", headers=admin).json()["is_paused"]
    assert server.http.post("/resume", headers=admin).json() == {"is_paused": False}
    assert server.http.post("/v1/abort_requests", json={"abort_all": True}, headers=admin).json()["aborted"] == 2
    for thread in threads:
        thread.join()
    assert {r.status_code for r in results.values()} == {400}
    assert server.http.post("/v1/chat/completions", json=chat()).status_code == 200
    server.wait_idle(5)


def test_concurrency_of_a_key(start_server):
    server = start_server("--api-key", "a", "--api-key", "b", "--max-concurrency-per-key", "1")
    results = {}
    thread = threading.Thread(target=endless, args=(server, 0, results, {"X-Api-Key": "a"}), kwargs={"max_tokens": 1500})
    thread.start()
    server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 1, 30)
    second = server.http.post("/v1/chat/completions", json=chat(), headers={"X-Api-Key": "a"})
    assert second.status_code == 429 and "--max-concurrency-per-key" in second.json()["error"]["message"]
    assert int(second.headers["retry-after"]) >= 1
    assert server.http.post("/v1/chat/completions", json=chat(), headers={"X-Api-Key": "b"}).status_code == 200
    thread.join()
    assert server.http.post("/v1/chat/completions", json=chat(), headers={"X-Api-Key": "a"}).status_code == 200


def test_a_full_queue_is_told_when_to_come_again(start_server):
    server = start_server("--max-num-seqs", "1", "--max-waiting-requests", "0")
    results = {}
    thread = threading.Thread(target=endless, args=(server, 0, results), kwargs={"max_tokens": 1500})
    thread.start()
    server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 1, 30)
    begin = time.monotonic()
    reply = server.http.post("/v1/chat/completions", json=chat())
    if reply.status_code == 429:
        assert "retry-after" in reply.headers and time.monotonic() - begin < 5
    thread.join()
    assert reply.status_code in (200, 429)


def test_log_lines(start_server, tmp_path):
    server = start_server("--log-format", "json", "--log-dir", str(tmp_path / "logs"), "--log-max-bytes", "4096", "--log-backups", "2")
    server.http.get("/v1/x%0d%0aforged:line", headers={"X-Request-Id": "mine-1"})
    secret = "Zanzibar"
    server.http.post("/v1/chat/completions", json={"messages": ask(f"The word is {secret}."), "max_tokens": 4})
    for _ in range(60):
        server.http.get("/version")
    lines = [json.loads(line) for line in server.log_text().splitlines()]
    (line,) = [e for e in lines if e.get("request_id") == "mine-1"]
    assert line["method"] == "GET" and line["status"] == 404 and line["bytes"] > 0 and line["ms"] >= 0 and "forged" in line["path"]
    (line,) = [e for e in lines if e.get("path") == "/v1/chat/completions"]
    assert line["status"] == 200 and line["id"].startswith("chatcmpl-")
    assert secret not in server.log_text()
    files = sorted(p.name for p in (tmp_path / "logs").iterdir())
    assert files == ["fastdeploy.log", "fastdeploy.log.1", "fastdeploy.log.2"]
    assert all(p.stat().st_size <= 4096 for p in (tmp_path / "logs").iterdir())


def test_log_text_and_prompts(start_server):
    server = start_server("--log-format", "text", "--log-prompts")
    server.http.post("/v1/chat/completions", json={"messages": ask("The word is Zanzibar."), "max_tokens": 4})
    assert "Zanzibar" in server.log_text()
    line = r" request method=POST path=/v1/chat/completions status=200 ms="  # written after the reply
    assert any(re.search(line, server.log_text()) or time.sleep(0.1) for _ in range(100))
    quiet = start_server("--no-access-log")
    quiet.http.get("/version")
    assert "/version" not in quiet.log_text()


def test_variables_without_effect_are_told(start_server, monkeypatch):
    monkeypatch.setenv("FD_MOE_BACKEND", "triton")
    monkeypatch.setenv("FD_API_KYE", "topsecret")
    monkeypatch.setenv("FD_LOG_LEVEL", "debug")
    server = start_server()
    log = server.log_text()
    assert "FD_MOE_BACKEND has no effect here" in log and "did you mean FD_API_KEY?" in log and "topsecret" not in log
    assert '"path":"/health"' in log  # probes are told at the level debug
    monkeypatch.setenv("FD_LOG_LEVEL", "loud")
    refused = subprocess.run([BINARY, "serve", MODEL], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "FD_LOG_LEVEL=loud" in refused.stderr


def test_service_manager_is_told(tmp_path, monkeypatch):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        server = Server("--shutdown-timeout", "5")
        message = manager.recv(4096).decode()
        assert message.startswith("READY=1\n") and server.url in message
        assert server.stop() == 0
        assert manager.recv(4096).decode().startswith("STOPPING=1\n")


@pytest.mark.parametrize("flags, words", [
    (["--model", "/nowhere"], ["/nowhere"]),
    (["--port", "{taken}"], ["--port"]),
    (["--api-key-file", "/nowhere"], ["--api-key-file"]),
    (["--api-key", ""], ["--api-key"]),
    (["--log-dir", "/proc/x/y"], ["--log-dir"]),
    (["--log-format", "xml"], ["--log-format"]),
    (["--max-concurrency-per-key", "3"], ["--api-key"]),
    (["--allowed-origins", "chat.example.org"], ["--allowed-origins"]),
])
def test_a_start_that_cannot_succeed(flags, words):
    """Exit code 2 and one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        flags = [f.format(taken=taken.getsockname()[1]) for f in flags]
        model = [] if "--model" in flags else ["--model", MODEL]
        result = subprocess.run([BINARY, "serve", *model, *flags], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("fastdeploy serve: ")]
    assert len(errors) == 1 and all(word in errors[0] for word in words), result.stderr
