"""What is left when a server is killed, and how it ends when its device fails.

pytest and the standard library only, so that it also runs on a GPU machine without PyPI:
    FASTDEPLOY_BIN=build/cuda-portable/fastdeploy FASTDEPLOY_TEST_DEVICE=cuda:0 python3 -m pytest --noconftest tests/e2e/faults_test.py
"""

import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import signal
import sys
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from server_process import ServerProcess  # noqa: E402

BINARY = str(ROOT / os.environ.get("FASTDEPLOY_BIN", "build/release/fastdeploy"))
DEVICE = os.environ.get("FASTDEPLOY_TEST_DEVICE", "cpu")
FLAGS = ("--device", DEVICE, "--max-model-len", "4096", "--max-num-seqs", "4")
TIMEOUT_S = 120
# Steps of one sequence or of four; the requests below start within the first few of them.
FAILING_STEP = 1500
TOKENS = 3000


def post(port, max_tokens, stream=False):
    """The reply to a request that runs until max_tokens; close its connection_."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("POST", "/v1/completions", json.dumps(
        {"prompt": [700, 800, 900], "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0, "stream": stream}),
        {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.connection_ = connection
    return response


def events(response):
    """The parsed events of a stream until it ends; [DONE] is left out."""
    for line in response:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def pages(server):
    return float(re.search(r"^fastdeploy:max_gpu_block_num (\S+)$", server.get("/metrics")[1], re.M).group(1))


def test_killed_run_leaves_nothing():
    server = ServerProcess(BINARY, *FLAGS)
    try:
        before = pages(server)
        response = post(server.port, TOKENS, stream=True)
        assert next(events(response))["choices"]
        assert server.process.pid in server.processes()
        server.process.send_signal(signal.SIGKILL)
        assert server.process.wait(timeout=10) == -signal.SIGKILL
        assert server.processes() == []
    finally:
        server.kill()
    # The client's end is still open, as with a client that does not notice: the port is free all the same.
    with ServerProcess(BINARY, *FLAGS, port=server.port) as again:
        reply = json.loads(post(again.port, 2).read())
        assert reply["usage"]["completion_tokens"] == 2
        if DEVICE != "cpu":
            assert pages(again) >= 0.98 * before, "the killed server's device memory is not free"
    response.connection_.close()


@pytest.fixture
def failing_server():
    server = ServerProcess(BINARY, *FLAGS, env={"FASTDEPLOY_FAULT": f"device_error@at={FAILING_STEP}"})
    yield server
    server.kill()


@pytest.mark.device_error
def test_device_error_ends_requests_and_process(failing_server):
    """Streams get an error event, other requests 503, and the process ends with code 3."""
    server = failing_server
    statuses = []
    ended = threading.Event()

    def poll():
        """Short requests one after the other until the port closes."""
        while not ended.is_set():
            try:
                response = post(server.port, 1)
                body = json.loads(response.read())
                statuses.append((response.status, body.get("error", {}).get("code")))
                response.connection_.close()
            except (OSError, http.client.HTTPException):
                return

    def whole_stream():
        return list(events(post(server.port, TOKENS, stream=True)))

    def whole_reply():
        response = post(server.port, TOKENS)
        return response.status, json.loads(response.read())

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        try:
            streams = [pool.submit(whole_stream) for _ in range(2)]
            plain = pool.submit(whole_reply)
            poller = pool.submit(poll)
            for stream in streams:
                received = stream.result(timeout=TIMEOUT_S)
                assert received[0]["choices"], "it ran before the error"
                assert received[-1].get("error", {}).get("code") == "service_unavailable", received[-1]
                assert received[-1]["error"]["message"]
            status, body = plain.result(timeout=TIMEOUT_S)
            assert status == 503 and body["error"]["code"] == "service_unavailable", (status, body)
            begin = time.monotonic()
            assert server.process.wait(timeout=10) == 3, server.log_tail()
            assert time.monotonic() - begin < 5
            poller.result(timeout=10)
        finally:
            ended.set()
            server.kill()  # ends the requests of a server that did not fail
    # Whether one of the short requests meets the failing step or comes between it and the closing of the port is chance.
    assert set(statuses) <= {(200, None), (503, "service_unavailable")}, set(statuses)
    assert server.processes() == []
    entries = [json.loads(line) for line in server.log_tail(1000).splitlines() if line.startswith("{")]
    assert any(entry["level"] == "error" and "device" in entry["message"] for entry in entries), server.log_tail()
    with ServerProcess(BINARY, *FLAGS, port=server.port) as again:
        assert post(again.port, 2).status == 200


@pytest.mark.device_error
def test_device_error_while_nobody_listens(failing_server):
    """Every client leaves after its first event: the process ends all the same, and on its own."""
    deadline = time.monotonic() + 60
    while failing_server.process.poll() is None and time.monotonic() < deadline:
        try:
            response = post(failing_server.port, TOKENS, stream=True)
            next(events(response), None)
            time.sleep(0.1)  # steps go on meanwhile
            response.connection_.close()
        except (OSError, http.client.HTTPException):
            pass
    assert failing_server.process.wait(timeout=10) == 3, failing_server.log_tail()
