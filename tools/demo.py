#!/usr/bin/env python3
"""Starts the server on the bundled model, asks it about a picture over HTTP, prints the answer as it streams, stops the server.

Usage: tools/demo.py path/to/fastdeploy
"""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
MODEL = os.path.join(ROOT, "models", "ernie-4.5-vl-tiny")
PICTURE = os.path.join(ROOT, "tests", "eval", "media", "describe-000-0.png")
QUESTION = "What is in the picture?"
START_TIMEOUT_S = 60


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until_ready(server, port):
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            return False
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return True
        except OSError:
            pass
        time.sleep(0.01)
    return False


def ask(port):
    """Prints the reply while it arrives; returns the answer."""
    with open(PICTURE, "rb") as f:
        url = "data:image/png;base64," + base64.b64encode(f.read()).decode()
    body = {
        "model": "default",
        "stream": True,
        "temperature": 0,
        "max_tokens": 128,
        "chat_template_kwargs": {"enable_thinking": True},
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}},
                                                  {"type": "text", "text": QUESTION}]}],
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"the server answered {response.status}: {response.read().decode()}")
    answer, part = "", None
    for line in response:
        line = line.decode().strip()
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        for choice in json.loads(line[6:])["choices"]:
            for key, label in (("reasoning_content", "thinking"), ("content", "answer")):
                text = choice["delta"].get(key) or ""
                if part != key:
                    text = text.lstrip("\n")
                if not text:
                    continue
                if part != key:
                    print(f"\n{label}: " if part else f"{label}: ", end="")
                    part = key
                print(text.replace("\n", " "), end="", flush=True)
                if key == "content":
                    answer += text
    print()
    return answer


def main():
    binary = os.path.abspath(sys.argv[1])
    port = free_port()
    with tempfile.TemporaryFile() as log:
        begin = time.monotonic()
        server = subprocess.Popen([binary, "serve", "--model", MODEL, "--port", str(port), "--max-model-len", "4096",
                                   "--reasoning-parser", "ernie-45-vl"], stdout=log, stderr=log)
        try:
            if not wait_until_ready(server, port):
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace"))
                raise SystemExit("the server did not start")
            print(f"server ready after {time.monotonic() - begin:.2f} s on 127.0.0.1:{port}")
            print(f"picture: {os.path.relpath(PICTURE, ROOT)}\nquestion: {QUESTION}")
            answer = ask(port)
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGTERM)
                try:
                    server.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()
    if server.returncode != 0:
        raise SystemExit(f"the server ended with code {server.returncode}")
    if not answer:
        raise SystemExit("the answer was empty")


if __name__ == "__main__":
    main()
