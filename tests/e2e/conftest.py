"""Starts real servers on free ports and hands out clients.

FASTDEPLOY_BIN names the program (default build/release/fastdeploy); tests marked `slow` are left out of sanitizer runs.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import httpx
import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = str((ROOT / os.environ.get("FASTDEPLOY_BIN", "build/release/fastdeploy")).resolve())
MODEL = str(ROOT / "models" / "ernie-4.5-vl-tiny")
EVAL = ROOT / "tests" / "eval"
sys.path[:0] = [str(EVAL), str(ROOT / "tools")]
from eval_set import image_part, questions, thinking  # noqa: E402, F401  tests import these from here
START_TIMEOUT_S = 60
SANITIZED = any(name in BINARY.split("/") for name in ("asan", "tsan"))  # its memory says nothing
# A server under a sanitizer is ten times slower; nothing here measures speed.
CLIENT_TIMEOUT_S = 600 if SANITIZED else 120
BASE_FLAGS = ("--max-model-len", "4096", "--max-num-seqs", "16", "--limit-mm-per-prompt", '{"image": 100, "video": 100}',
              "--reasoning-parser", "ernie-45-vl", "--gpu-memory-utilization", "0.85", "--max-num-batched-tokens", "384")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def without_cached(usage):
    """Usage but for what the prefix cache had of the prompt: that depends on who asked before."""
    details = usage["prompt_tokens_details"]
    assert 0 <= details["cached_tokens"] < usage["prompt_tokens"]
    return {**usage, "prompt_tokens_details": {**details, "cached_tokens": None}}


class Server:
    """A running `fastdeploy serve`."""

    def __init__(self, *flags, model=MODEL, metrics_port=None, binary=BINARY):
        self.port = free_port()
        self.metrics_port = metrics_port or self.port
        self.log = tempfile.TemporaryFile()
        extra = ["--metrics-port", str(metrics_port)] if metrics_port else []
        self.process = subprocess.Popen([binary, "serve", "--model", str(model), "--port", str(self.port), *extra, *flags],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=ROOT)
        self.url = f"http://127.0.0.1:{self.port}"
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            assert self.process.poll() is None, "the server ended while starting:\n" + self.log_text()
            assert time.monotonic() < deadline, "the server did not start:\n" + self.log_text()
            try:
                if httpx.get(self.url + "/health", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.01)
        self.http = httpx.Client(base_url=self.url, timeout=CLIENT_TIMEOUT_S)
        self.client = openai.OpenAI(base_url=self.url + "/v1", api_key="none", timeout=CLIENT_TIMEOUT_S, max_retries=0)

    def log_text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def metrics(self):
        """{"fastdeploy:num_requests_running": 0.0, ...}; the metrics without labels."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=CLIENT_TIMEOUT_S).text
        return {name: float(value) for name, value in re.findall(r"^([a-zA-Z0-9_:]+) (\S+)$", text, re.M)}

    def wait_for(self, condition, timeout_s):
        """The metrics once condition(metrics) holds; fails after timeout_s."""
        deadline = time.monotonic() + timeout_s
        while True:
            metrics = self.metrics()
            if condition(metrics):
                return metrics
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {metrics}"
            time.sleep(0.01)

    def wait_idle(self, timeout_s=1.0):
        return self.wait_for(is_idle, timeout_s)

    def stop(self):
        """Drains by SIGTERM; the exit code. What it started (fastdeploy-media) must be gone with it."""
        self.http.close()
        self.client.close()
        children = child_processes(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        assert code != 0 or not (left := [pid for pid in children if os.path.exists(f"/proc/{pid}")]), f"processes are left: {left}"
        return code


def child_processes(pid):
    """Process ids of what it started and has not collected."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as f:
                if int(f.read().rpartition(")")[2].split()[1]) == pid:  # after the name: state, parent
                    found.append(int(entry))
        except OSError:  # it ended just now
            continue
    return found


def is_idle(metrics):
    """Nothing runs, nothing waits, every page is free again."""
    return (metrics["fastdeploy:num_requests_running"] == 0 and metrics["fastdeploy:num_requests_waiting"] == 0 and
            metrics["fastdeploy:available_gpu_block_num"] == metrics["fastdeploy:max_gpu_block_num"])


def ask(text, *images):
    """The messages of one question."""
    if not images:
        return [{"role": "user", "content": text}]
    return [{"role": "user", "content": [image_part(i) for i in images] + [{"type": "text", "text": text}]}]


@pytest.fixture
def start_server():
    """start_server(*flags) -> Server; all of them are stopped after the test."""
    servers = []

    def start(*flags, **keywords):
        servers.append(Server(*flags, **keywords))
        return servers[-1]

    yield start
    for server in servers:
        code = server.stop()
        assert code == 0, f"the server ended with code {code}:\n" + server.log_text()


@pytest.fixture(scope="session")
def shared_server():
    server = Server(*BASE_FLAGS, metrics_port=free_port())
    yield server
    pid = server.process.pid
    code = server.stop()
    assert code == 0, f"server {pid} ended with code {code}:\n" + server.log_text()


@pytest.fixture
def server(shared_server):
    """The shared server; every test must leave it alive, idle and without a leaked page."""
    yield shared_server
    assert shared_server.process.poll() is None, "the server died:\n" + shared_server.log_text()
    shared_server.wait_idle(10)
