"""Logs: rotation, levels, no key and no prompt in them, and no input that makes a line of its own."""

import json
import os
import re
import socket

import pytest

from conftest import ask

TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
FORGED = "2026-01-01T00:00:00.000Z forged line"


def raw(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as s:
        s.sendall(data)
        s.settimeout(5)
        reply = b""
        try:
            while chunk := s.recv(65536):
                reply += chunk
        except TimeoutError:
            pass
    return reply


def check_lines(text, style):
    lines = text.splitlines()
    assert lines
    for line in lines:
        if style == "json":
            entry = json.loads(line)
            assert {"time", "level", "message"} <= set(entry)
        else:
            assert TEXT_LINE.match(line), line
        assert not line.startswith(FORGED) and "\x1b" not in line and "\r" not in line


@pytest.mark.parametrize("style", ["text", "json"])
def test_nothing_forges_a_line(start_server, tmp_path, style):
    server = start_server("--log-format", style, "--log-dir", str(tmp_path), "--log-level", "debug", "--log-prompts")
    evil = f"x\r\n{FORGED}\n\x1b[2J\u2028\u0085"
    encoded = "x%0d%0a" + FORGED.replace(" ", "%20") + "%0a%1b[2J"
    for path in (f"/{encoded}", f"/v1/models/{encoded}", f"/version?{encoded}"):
        assert raw(server, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    for header in (b"X-Request-Id: a\x1b[2J", b"X-Request-Id: a%0d%0ab", b"User-Agent: x\tforged", b"Authorization: Bearer \xff\xfe"):
        raw(server, b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + header + b"\r\n\r\n")
    # Bare line ends in a header are refused or part of a value; either way no line comes of them.
    raw(server, b"GET /version HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\n" + FORGED.encode() + b"\r\n\r\n")
    raw(server, f"GET /\n{FORGED} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    for field in ("model", "user", "request_id"):
        server.http.post("/v1/chat/completions", json={"messages": ask("a"), "max_tokens": 1, field: evil})
        server.http.post("/v1/chat/completions", json={"messages": ask("a"), "max_tokens": 1, field: encoded})
    server.http.post("/v1/chat/completions", json={"messages": ask(evil), "max_tokens": 1})  # --log-prompts
    server.http.post("/v1/chat/completions", json={"messages": ask("a"), "max_tokens": 1, evil: 1, "stop": evil})
    server.http.post("/v1/chat/completions", content=evil.encode())
    assert server.http.get("/version", headers={"X-Request-Id": "whole"}).status_code == 200
    assert "whole" in server.log_text()
    check_lines(server.log_text(), style)
    check_lines((tmp_path / "fastdeploy.log").read_text(), style)


def test_no_key_in_a_log(start_server, tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text("secret-of-the-file\n")
    logs = tmp_path / "logs"
    monkeypatch.setenv("FD_LOG_DIR", str(logs))
    monkeypatch.setenv("FD_LOG_LEVEL", "DEBUG")
    server = start_server("--api-key", "secret-of-a-flag", "--api-key-file", str(keys), "--admin-key", "secret-admin")
    used = ["secret-of-a-flag", "secret-of-the-file", "secret-admin", "secret-that-is-wrong"]
    for key in used:
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-Api-Key": key}, {"Authorization": f"Basic {key}"}, {"Cookie": f"key={key}"}):
            server.http.get("/v1/models", headers=headers)
            server.http.get("/nowhere", headers=headers)
            server.http.post("/v1/chat/completions", headers=headers, content="{")
        server.http.get("/v1/models", params={"api_key": key})
        server.http.get("/v1/pause", params={"key": key})
    info = server.http.get("/config-info", headers={"X-Api-Key": "secret-of-a-flag"}).text
    everything = server.log_text() + info + "".join(p.read_text() for p in logs.iterdir())
    assert "/v1/models" in everything and not [key for key in used if key in everything]
    monkeypatch.setenv("FD_API_KEY", "secret-of-the-environment")
    server = start_server()
    assert server.http.get("/v1/models", headers={"X-Api-Key": "secret-of-the-environment"}).status_code == 200
    assert "secret-of-the-environment" not in server.log_text() + "".join(p.read_text() for p in logs.iterdir())


def test_no_prompt_in_a_log(start_server, tmp_path):
    server = start_server("--log-dir", str(tmp_path), "--log-level", "debug")
    word = "Zanzibar"
    bodies = [{"messages": ask(word)}, {"messages": ask(word), "stream": True}, {"messages": [{"role": word, "content": "a"}]},
              {"messages": ask("a"), "stop": word * 200}, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:{word}"}}]}]},
              {"messages": ask("a"), "tools": [{"type": "function", "function": {"name": word}}]}, {"messages": ask("a"), word: 1}]
    for body in bodies:
        server.http.post("/v1/chat/completions", json={**body, "max_tokens": 2})
    server.http.post("/v1/completions", json={"prompt": word, "max_tokens": 2, "echo": True})
    server.http.post("/tokenize", json={"prompt": word})
    server.http.post("/v1/chat/completions", content=f'{{"messages": "{word}')
    assert word not in server.log_text() and word not in (tmp_path / "fastdeploy.log").read_text()


def test_rotation(start_server, tmp_path, monkeypatch):
    """Sizes, number of backups (FD_LOG_BACKUP_COUNT), and no line lost or cut between two files."""
    monkeypatch.setenv("FD_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("FD_LOG_BACKUP_COUNT", "3")
    server = start_server("--log-max-bytes", "8192")
    total = 400
    for i in range(total):
        server.http.get("/version", headers={"X-Request-Id": f"r-{i}"})
    names = sorted(os.listdir(tmp_path / "logs"))
    assert names == ["fastdeploy.log", "fastdeploy.log.1", "fastdeploy.log.2", "fastdeploy.log.3"]
    seen = []
    for name in reversed(names):  # the oldest first
        text = (tmp_path / "logs" / name).read_text()
        assert len(text.encode()) <= 8192 and text.endswith("\n")
        if name != "fastdeploy.log":
            assert len(text.encode()) > 8192 - 512, "a file ends when the next line does not fit"
        seen += [e["request_id"] for e in map(json.loads, text.splitlines()) if e.get("path") == "/version"]
    assert seen == [f"r-{i}" for i in range(total - len(seen), total)] and len(seen) > 60
    # A server that starts again goes on in the file.
    before = (tmp_path / "logs" / "fastdeploy.log").read_text()
    server = start_server("--log-backups", "0", "--log-max-bytes", "1000000")
    assert (tmp_path / "logs" / "fastdeploy.log").read_text().startswith(before)


def test_levels(start_server, monkeypatch):
    monkeypatch.setenv("FD_LOG_LEVEL", "ERROR")
    server = start_server()
    server.http.get("/nowhere")
    assert server.log_text() == ""
    server = start_server("--log-level", "info")  # the flag comes first
    assert '"level":"info"' in server.log_text()
    monkeypatch.delenv("FD_LOG_LEVEL")
    monkeypatch.setenv("FD_DEBUG", "1")
    assert '"level":"debug"' in start_server().log_text()
