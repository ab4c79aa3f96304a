"""Clients that go away, that ask again and that send rubbish: what ends, what stays, and who does not notice."""

import concurrent.futures
import json
import re
import socket
import struct
import time

import httpx
import pytest

from conftest import CLIENT_TIMEOUT_S, EVAL, ask, thinking

FLAGS = ("--max-model-len", "4096", "--max-num-seqs", "8")
PICTURE = EVAL / "media" / "describe-000-0.png"


def http_count(server, status):
    text = httpx.get(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=CLIENT_TIMEOUT_S).text
    return sum(float(v) for v in re.findall(rf'^http_requests_total{{[^}}]*status_code="{status}"[^}}]*}} (\S+)$', text, re.M))


def send(server, body, path="/v1/completions"):
    data = json.dumps(body).encode()
    s = socket.create_connection(("127.0.0.1", server.port), timeout=CLIENT_TIMEOUT_S)
    s.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    return s


def leave(s, how):
    if how == "reset":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half-close":
        s.shutdown(socket.SHUT_WR)
    else:
        s.close()


def test_a_client_that_leaves_ends_its_request_within_a_step(start_server, monkeypatch, tmp_path):
    """In the middle of its prompt and of its answer, with a stream and without, in each way of leaving."""
    monkeypatch.setenv("FASTDEPLOY_FAULT", "slow_step@ms=100")
    log = tmp_path / "steps.jsonl"
    server = start_server(*FLAGS, "--max-num-batched-tokens", "64", "--step-log", str(log))
    left = []
    cases = [(how, stream, phase) for how in ("close", "reset", "half-close") for stream in (True, False) for phase in ("prompt", "answer")]
    for n, (how, stream, phase) in enumerate(cases):
        # Tokens of its own, so that the prefix cache has nothing; 47 steps for a long prompt.
        prompt = [300 + n] * (3000 if phase == "prompt" else 20)
        before, closed = server.metrics(), http_count(server, 499)
        s = send(server, {"prompt": prompt, "max_tokens": 1000, "ignore_eos": True, "stream": stream})
        if phase == "prompt":
            server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 1, 30)
            time.sleep(0.25)
        else:
            server.wait_for(lambda m: m["fastdeploy:generation_tokens_total"] >= before["fastdeploy:generation_tokens_total"] + 2, 30)
        left_at = time.time()
        leave(s, how)
        after = server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 0, 10)
        assert after["fastdeploy:available_gpu_block_num"] == after["fastdeploy:max_gpu_block_num"]
        assert after["fastdeploy:request_aborted_total"] == before["fastdeploy:request_aborted_total"] + 1, (how, stream, phase)
        if phase == "prompt":
            assert after["fastdeploy:generation_tokens_total"] == before["fastdeploy:generation_tokens_total"], "its prompt was done"
        server.wait_for(lambda m: http_count(server, 499) == closed + 1, 10)
        left.append((left_at, time.time()))
        s.close()
    assert server.stop() == 0
    times = [json.loads(line)["time"] for line in log.read_text().splitlines()]
    for case, (begin, end) in zip(cases, left):
        # The step that ran, and one where the word came while the next was planned.
        assert sum(begin < t <= end for t in times) <= 2, case


def test_a_shared_prefix_stays_when_one_of_its_readers_leaves(start_server, monkeypatch):
    monkeypatch.setenv("FASTDEPLOY_FAULT", "slow_step@ms=20")
    server = start_server(*FLAGS)
    prompt = [400 + n % 90 for n in range(1000)]
    body = {"prompt": prompt, "max_tokens": 40, "temperature": 0, "ignore_eos": True, "return_token_ids": True}

    def ids(reply):
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"][0]["completion_token_ids"]

    clean = ids(server.http.post("/v1/completions", json={**body, "prompt": prompt, "cache_salt": "alone"}))
    first = send(server, {**body, "max_tokens": 2000, "stream": True})
    assert first.recv(1)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        second = pool.submit(server.http.post, "/v1/completions", json=body)
        server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 2, 30)
        leave(first, "reset")
        server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 1, 10)
        assert ids(second.result()) == clean
        assert second.result().json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 900
    third = server.http.post("/v1/completions", json=body)
    assert ids(third) == clean and third.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 900
    server.wait_idle(10)


def test_a_proxy_that_gives_up_and_asks_again(start_server, monkeypatch):
    """Every request twice, with the same id: the first of each ends with its connection, the second is answered, and each counts once."""
    monkeypatch.setenv("FASTDEPLOY_FAULT", "slow_step@ms=10")
    server = start_server(*FLAGS)
    before = server.metrics()
    count, tokens = 12, 30

    def one(n):
        body = {"prompt": [500 + n] * 100, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        headers = {"X-Request-Id": f"retry-{n}"}
        with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client:
            try:
                client.post("/v1/completions", json={**body, "max_tokens": 3000}, headers=headers, timeout=httpx.Timeout(CLIENT_TIMEOUT_S, read=0.2))
                raise AssertionError("it cannot have been answered")
            except httpx.ReadTimeout:
                pass
        with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client:
            reply = client.post("/v1/completions", json=body, headers=headers)
        assert reply.status_code == 200 and reply.headers["x-request-id"] == f"retry-{n}"
        assert reply.json()["usage"]["completion_tokens"] == tokens

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))
    after = server.wait_idle(10)
    assert after["fastdeploy:request_success_total"] == before["fastdeploy:request_success_total"] + count
    assert after["fastdeploy:request_aborted_total"] == before["fastdeploy:request_aborted_total"] + count


BAD = [b"", b"{", b"[]", b'{"prompt": [5, -1]}', b'{"prompt": "a", "temperature": 1e400}', b'{"prompt": "a", "max_tokens": -5}',
       b'{"prompt": "a", "logit_bias": {"999999999": 1}}', b'{"prompt": [' + b"5," * 9000 + b"5]}", b'{"prompt": "a", "n": 100000}',
       b'{"prompt": "\\ud800"}', b"\xff\xfe", b'{"prompt": "a", "stop": ["", ""]}', b'{"prompt": {"a": 1}}', b"[" * 5000]
BAD_CHATS = [{"messages": []}, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
             {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]}]},
             {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}]}]}]


def test_bad_requests_among_good_ones_change_nothing(start_server):
    server = start_server(*FLAGS)

    def good(n):
        if n % 10 == 9:
            body = {"messages": ask("What is it?", PICTURE), "temperature": 0, "max_tokens": 12, "logprobs": True, "return_token_ids": True, **thinking(False)}
            path = "/v1/chat/completions"
        else:
            body = {"prompt": f"Compute {n} + {n % 7}.", "max_tokens": 8 + n % 13, "ignore_eos": True, "logprobs": 1, "return_token_ids": True,
                    "temperature": n % 3 / 2, "seed": n}
            path = "/v1/completions"
        with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client:
            reply = client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        choice = reply.json()["choices"][0]
        return json.dumps([choice.get("text"), choice.get("message"), choice["logprobs"], choice["finish_reason"]], sort_keys=True)

    def bad(n):
        with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client:
            if n % 5 == 4:
                reply = client.post("/v1/chat/completions", json=BAD_CHATS[n // 5 % len(BAD_CHATS)])
            else:
                reply = client.post("/v1/completions", content=BAD[n % len(BAD)], headers={"Content-Type": "application/json"})
        assert 400 <= reply.status_code < 500, (n, reply.text)
        s = send(server, {"prompt": [600 + n] * 200, "max_tokens": 500, "ignore_eos": True, "stream": n % 2 == 0})
        leave(s, ("reset", "close", "half-close")[n % 3])
        s.close()

    count = 100
    clean = [good(n) for n in range(count)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        rubbish = [pool.submit(bad, n) for n in range(count)]
        mixed = [pool.submit(good, n) for n in range(count)]
        assert [m.result() for m in mixed] == clean
        for r in rubbish:
            r.result()
    server.wait_idle(20)
