"""What the hostile tests share: a canary that runs beside them, and the question whether a server survived.

Survived: the same process, /health 200, nothing left running, memory near where it was, and the canary said the same tokens with the same
log-probabilities as when it was alone.
"""

import concurrent.futures
import os
import re
import threading
import time

import httpx

from conftest import SANITIZED, ask, thinking

# What a connection, a thread's heap and a parsed body may leave behind; a leak of the inputs would be far more.
SLACK_BYTES = 96 << 20
CANARY = {"messages": ask("Tell a story about Li Wei in Paris."), "temperature": 1.0, "top_p": 1, "seed": 11, "max_tokens": 24, "logprobs": True,
          "top_logprobs": 3, **thinking(False)}


def memory_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096


def cpu_seconds(server):
    """Processor time of the server so far: says how much work it did, however busy the machine is."""
    with open(f"/proc/{server.process.pid}/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watch:
    """with Watch(server): hostile requests. The canary runs meanwhile, again and again."""

    def __init__(self, server):
        self.server, self.runs, self.fault = server, 0, None

    def sing(self):
        """The canary's tokens and log-probabilities."""
        reply = httpx.post(self.server.url + "/v1/chat/completions", json=CANARY, timeout=600)
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"]

    def __enter__(self):
        self.solo = self.sing()
        self.memory = memory_bytes(self.server.process.pid)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def _run(self):
        try:
            while not self.over.is_set():
                assert self.sing() == self.solo, "the canary was disturbed"
                self.runs += 1
                self.over.wait(0.1)  # most of the machine is for what is tested
        except Exception as fault:  # it is told by the test's thread
            self.fault = fault

    def __exit__(self, kind, *_):
        self.over.set()
        self.thread.join()
        assert self.server.process.poll() is None, "the server died:\n" + self.server.log_text()[-3000:]
        if kind is not None:
            return
        if self.fault is not None:
            raise self.fault
        assert self.runs > 0, "the canary never came to an end"
        assert self.server.http.get("/health").status_code == 200
        assert self.sing() == self.solo
        self.server.wait_idle(10)
        if not SANITIZED:
            deadline = time.monotonic() + 10
            while memory_bytes(self.server.process.pid) > self.memory + SLACK_BYTES:
                assert time.monotonic() < deadline, f"memory grew from {self.memory} to {memory_bytes(self.server.process.pid)} bytes"
                time.sleep(0.1)


def each(check, cases):
    """check(*case) of every case, 16 at a time: on a busy machine a request waits more than it works. The first failure is told."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(check, *case) for case in cases]:
            future.result()


def post(server, path, body, **keywords):
    keywords = {"timeout": 600, **keywords}  # a machine that does other work may stop for minutes
    if isinstance(body, (str, bytes)):
        return server.http.post(path, content=body, headers={"Content-Type": "application/json"}, **keywords)
    return server.http.post(path, json=body, **keywords)


def check_refusal(reply, *words, status=400):
    """An OpenAI error of this status that says all of words and nothing of the server's insides; the error."""
    assert reply.status_code == status, (reply.status_code, reply.text[:500])
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()["error"]
    if reply.json().get("type") == "error":  # Anthropic's shape, of /v1/messages
        assert set(error) == {"message", "type"}
        error = {**error, "param": None, "code": None}
    assert set(error) == {"message", "type", "param", "code"}
    assert 0 < len(error["message"]) < 2000 and isinstance(error["type"], str)
    assert not re.search(r"0x[0-9a-f]{4}|/(home|root|usr|src|tmp|work)/|\.cc\b|std::|\n", error["message"]), error["message"]
    for word in words:
        assert word in error["message"], (word, error["message"])
    return error
