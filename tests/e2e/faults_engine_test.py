"""Steps that are slow, stuck or without memory, and memory that is missing elsewhere: who gets an error, who goes on, how the server ends."""

import concurrent.futures
import json
import threading
import time

import httpx
import pytest

from conftest import BINARY, CLIENT_TIMEOUT_S, EVAL, MODEL, SANITIZED, Server, ask, thinking

FLAGS = ("--max-model-len", "4096", "--max-num-seqs", "4")
PICTURE = EVAL / "media" / "describe-000-0.png"
EXIT_LOST = 3


def body(n=0, **fields):
    return {"prompt": [700 + n, 800, 900], "temperature": 0, "ignore_eos": True, "max_tokens": 8, **fields}


def complete(server, **fields):
    with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client:
        return client.post("/v1/completions", json=body(**fields))


def stream(server, **fields):
    """The events of a stream, the last one an error where there is one, and when it ended."""
    events = []
    with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client, client.stream(
            "POST", "/v1/completions", json=body(stream=True, **fields)) as reply:
        if reply.status_code != 200:
            return [json.loads(reply.read())], time.monotonic()
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                events.append(json.loads(line[6:]))
    return events, time.monotonic()


def get(server, path, timeout=30):
    return httpx.get(server.url + path, timeout=timeout).status_code


def warnings(server, word):
    return [line for line in server.log_text().splitlines() if word in line]


@pytest.fixture
def dying_server(monkeypatch):
    """dying_server(faults, *flags): a server that may end as it likes."""
    servers = []

    def start(faults, *flags):
        monkeypatch.setenv("FASTDEPLOY_FAULT", faults)
        servers.append(Server(*FLAGS, *flags))
        return servers[-1]

    yield start
    for server in servers:
        server.http.close()
        server.client.close()
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


def test_faults_are_named_at_start(monkeypatch, start_server):
    import subprocess
    monkeypatch.setenv("FASTDEPLOY_FAULT", "slow_stpe@ms=1")
    run = subprocess.run([BINARY, "serve", MODEL, "--port", "0"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "did you mean slow_step?" in run.stderr and "\n  device_error: " in run.stderr
    monkeypatch.setenv("FASTDEPLOY_FAULT", "slow_step@at=1000000")
    server = start_server()
    (line,) = warnings(server, "FASTDEPLOY_FAULT")
    assert json.loads(line)["level"] == "warning" and "slow_step@at=1000000" in line
    # No request can switch one on.
    for fields in ({"FASTDEPLOY_FAULT": "step_alloc"}, {"metadata": {"FASTDEPLOY_FAULT": "step_alloc"}}, {"extra_body": {"fault": "step_alloc"}}):
        assert complete(server, **fields).status_code == 200
    monkeypatch.delenv("FASTDEPLOY_FAULT")
    assert not warnings(start_server(), "FASTDEPLOY_FAULT")


def test_a_slow_step_is_told_and_readiness_goes_but_not_liveness(start_server, monkeypatch):
    monkeypatch.setenv("FASTDEPLOY_FAULT", "slow_step@at=3,times=1,ms=6000")
    server = start_server(*FLAGS, "--step-timeout", "15", "--heartbeat-timeout", "1", "--health-timeout", "0.2")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = pool.submit(complete, server, max_tokens=20)
        server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 1, 30)
        late = pool.submit(complete, server, n=1, timeout=0.5)
        statuses = []
        while not slow.done():
            statuses.append((get(server, "/health"), get(server, "/readyz"), get(server, "/livez")))
            time.sleep(0.2)
        assert slow.result().status_code == 200 and slow.result().json()["usage"]["completion_tokens"] == 20
        assert late.result().status_code == 408, late.result().text
    assert (503, 503, 200) in statuses and all(live == 200 for _, _, live in statuses), statuses
    assert get(server, "/health") == 200
    (line,) = warnings(server, "--step-timeout")
    assert json.loads(line)["level"] == "warning"
    assert server.wait_idle(10)["fastdeploy:slow_steps_total"] == 1


def test_a_stuck_step_ends_every_request_and_the_process(dying_server):
    limit_s = 2.0
    server = dying_server("slow_step@at=30,times=1,ms=3600000", "--step-timeout", str(limit_s), "--max-num-seqs", "2")
    healths = []
    ended = threading.Event()

    def poll():
        last = False
        while not last:  # once more when it has ended
            last = ended.is_set()
            try:
                healths.append((time.monotonic(), get(server, "/health", timeout=10)))
            except httpx.TransportError:
                healths.append((time.monotonic(), 0))
            time.sleep(0.01)

    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        poller = pool.submit(poll)
        streams = [pool.submit(stream, server, n=n, max_tokens=3000) for n in range(2)]
        waiting = pool.submit(complete, server, n=9, max_tokens=3000)
        code = server.process.wait(timeout=90)
        end = time.monotonic()
        for s in streams:
            events, at = s.result()
            assert events[-1]["error"]["code"] == "service_unavailable" and "--step-timeout" in events[-1]["error"]["message"], events[-1]
            assert at <= end + 1
        reply = waiting.result()
        assert reply.status_code == 503 and "--step-timeout" in reply.json()["error"]["message"], reply.text
        ended.set()
        poller.result()
    assert code == EXIT_LOST, server.log_text()
    assert limit_s <= end - begin < limit_s + 30  # the machine does other things
    (stuck,) = [json.loads(line) for line in warnings(server, "the engine is stuck") if '"level":"error"' in line and "ending with code" not in line]
    # From the first 503 on never again 200.
    codes = [code for _, code in healths]
    first = next(i for i, c in enumerate(codes) if c != 200)
    assert 200 not in codes[first:], codes
    assert "ending with code 3" in server.log_text() and stuck


def test_a_step_without_memory_ends_its_requests_alone(start_server, monkeypatch):
    server = start_server(*FLAGS)
    clean = [complete(server, n=n, max_tokens=30, return_token_ids=True).json()["choices"][0]["completion_token_ids"] for n in range(3)]
    monkeypatch.setenv("FASTDEPLOY_FAULT", "step_alloc@at=40")
    server = start_server(*FLAGS)
    events, _ = stream(server, max_tokens=3000)
    assert len(events) > 20 and events[-1]["error"]["code"] == "service_unavailable" and "memory" in events[-1]["error"]["message"]
    for n, ids in enumerate(clean):
        reply = complete(server, n=n, max_tokens=30, return_token_ids=True)
        assert reply.status_code == 200 and reply.json()["choices"][0]["completion_token_ids"] == ids
    assert get(server, "/health") == 200 and get(server, "/livez") == 200
    server.wait_idle(10)


def test_an_engine_without_memory_ends_as_a_lost_device(dying_server):
    server = dying_server("plan_alloc@at=40")
    events, _ = stream(server, max_tokens=3000)
    assert events[-1]["error"]["code"] == "service_unavailable" and "memory" in events[-1]["error"]["message"], events[-1]
    assert server.process.wait(timeout=30) == EXIT_LOST, server.log_text()


@pytest.mark.parametrize("fault", ["parse_alloc@at=3", "reply_alloc@at=2"])
def test_a_request_without_memory_is_its_own_error(start_server, monkeypatch, fault):
    monkeypatch.setenv("FASTDEPLOY_FAULT", fault)
    server = start_server(*FLAGS)
    assert complete(server).status_code == 200
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        replies = [complete(server) for _ in range(2)]
        beside = pool.submit(complete, server, n=5, max_tokens=200)
        statuses = sorted(r.status_code for r in replies)
        assert beside.result().status_code == 200
    assert statuses == [200, 503], [r.text for r in replies]
    refused = next(r for r in replies if r.status_code == 503).json()["error"]
    assert "memory" in refused["message"] and refused["code"] == "service_unavailable"
    assert complete(server).status_code == 200
    server.wait_idle(10)


def test_a_picture_without_memory_is_its_requests_error(start_server, monkeypatch):
    monkeypatch.setenv("FASTDEPLOY_FAULT", "media_alloc@at=2")
    server = start_server(*FLAGS)
    chat = {"messages": ask("What is it?", PICTURE), "temperature": 0, "max_tokens": 6, **thinking(False)}
    first = server.http.post("/v1/chat/completions", json=chat)
    assert first.status_code == 503 and "memory" in first.json()["error"]["message"], first.text
    assert "messages[0].content[0]" in first.json()["error"]["message"]
    assert server.http.post("/v1/chat/completions", json=chat).status_code == 200
    server.wait_for(lambda m: m["fastdeploy:mm_jobs_in_flight"] == 0 and m["fastdeploy:mm_bytes_in_flight"] == 0, 10)
    server.wait_idle(10)


def test_a_connection_without_memory_is_closed_and_others_come(start_server, monkeypatch):
    monkeypatch.setenv("FASTDEPLOY_FAULT", "accept_alloc@at=40,times=3")
    server = start_server(*FLAGS)
    codes = []
    for _ in range(60):
        try:
            codes.append(get(server, "/version"))
        except httpx.TransportError:
            codes.append(0)
    assert codes.count(0) == 3 and codes.count(200) == 57, codes
    assert len(warnings(server, "a connection could not be served")) == 3
    assert complete(server).status_code == 200


def test_scratch_that_is_taken_is_allocated_and_told(start_server, monkeypatch):
    server = start_server(*FLAGS)
    clean = complete(server, max_tokens=40, return_token_ids=True).json()["choices"][0]["completion_token_ids"]
    monkeypatch.setenv("FASTDEPLOY_FAULT", "scratch_overflow@at=5,times=1")
    server = start_server(*FLAGS)
    assert complete(server, max_tokens=40, return_token_ids=True).json()["choices"][0]["completion_token_ids"] == clean
    assert len(warnings(server, "bytes of scratch")) == 1


def test_a_full_cache_preempts_and_the_text_is_the_same(start_server):
    tokens, pages = (150, 8) if SANITIZED else (250, 14)
    server = start_server(*FLAGS)
    clean = [complete(server, n=n, max_tokens=tokens, return_token_ids=True).json()["choices"][0]["completion_token_ids"] for n in range(8)]
    small = start_server("--max-model-len", "512", "--max-num-seqs", "8", "--num-kv-pages", str(pages))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda n: complete(small, n=n, max_tokens=tokens, return_token_ids=True), range(8)))
    assert [r.json()["choices"][0]["completion_token_ids"] for r in replies] == clean
    metrics = small.wait_idle(10)
    assert 0 < metrics["fastdeploy:request_preempted_total"] <= 8 * 8, "none, or the same ones again and again"
    # What can never fit is refused at once, with both numbers.
    begin = time.monotonic()
    never = small.http.post("/v1/completions", json={"prompt": [5] * 600, "max_tokens": 1})
    assert never.status_code == 400 and "512" in never.json()["error"]["message"] and "600" in never.json()["error"]["message"]
    assert time.monotonic() - begin < 5
