"""What an operator sees: endpoints, metrics, many clients, clients that leave, shutdown."""

import concurrent.futures
import json
import random
import signal
import socket
import subprocess
import threading
import time

import httpx
import openai
import pytest

from conftest import BASE_FLAGS, BINARY, MODEL, ROOT, Server, ask, free_port, is_idle, thinking

STORY = "Tell a story about Li Wei in Paris, a orange green and a cactus."


def endless(max_tokens=3000):
    """A request that runs until max_tokens."""
    return {"messages": ask(STORY), "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True, "stream": True, **thinking(False)}


def open_stream(server, body=None):
    """A socket with the request sent and nothing read: a queued request's head comes with its first token. close() leaves."""
    body = json.dumps(body or endless()).encode()
    s = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
              b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    return s


def test_models(server):
    models = server.client.models.list().data
    assert len(models) == 1
    assert models[0].id == "ernie-4.5-vl-tiny"
    assert models[0].object == "model"
    assert models[0].max_model_len == 4096


def test_health(server):
    response = server.http.get("/health")
    assert response.status_code == 200


def test_metrics_are_on_their_port(server):
    assert server.metrics_port != server.port
    before = server.metrics()
    reply = server.client.chat.completions.create(model="default", messages=ask("Compute 45 + 11."), temperature=0)
    after = server.metrics()
    assert after["fastdeploy:request_success_total"] == before["fastdeploy:request_success_total"] + 1
    assert after["fastdeploy:prompt_tokens_total"] == before["fastdeploy:prompt_tokens_total"] + reply.usage.prompt_tokens
    assert (after["fastdeploy:generation_tokens_total"] ==
            before["fastdeploy:generation_tokens_total"] + reply.usage.completion_tokens)
    for name in ("time_to_first_token_seconds_count", "e2e_request_latency_seconds_count", "request_prompt_tokens_count"):
        assert after["fastdeploy:" + name] == before["fastdeploy:" + name] + 1, name
    text = httpx.get(f"http://127.0.0.1:{server.metrics_port}/metrics").text
    assert "# TYPE fastdeploy:num_requests_running gauge" in text


def test_keep_alive(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
        for path in ("/health", "/v1/models", "/health"):
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                part = s.recv(65536)
                assert part, "the connection was closed"
                head += part
            head, rest = head.split(b"\r\n\r\n", 1)
            assert head.startswith(b"HTTP/1.1 200")
            length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            while len(rest) < length:
                rest += s.recv(65536)
            assert len(rest) == length


def test_sixteen_at_once_answer_as_one(server):
    def answer(i):
        reply = server.client.chat.completions.create(model="default", messages=ask(f"Compute {i} + {2 * i}."), temperature=0,
                                                      extra_body=thinking(False))
        return reply.choices[0].message.content

    alone = [answer(i) for i in range(10, 42)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(answer, range(10, 42)))
    assert together == alone


def test_sixty_four_streams_and_half_leave(server):
    """64 streams at once, half of the clients leave in the middle: no crash, no leaked page, running back to 0 within a second."""
    random_source = random.Random(3)
    leave_after = [random_source.randrange(1, 25) if i % 2 else None for i in range(64)]
    texts, errors = [None] * 64, []

    def stream(i):
        try:
            with httpx.Client(timeout=300) as http:
                body = endless(60)
                with http.stream("POST", server.url + "/v1/chat/completions", json=body) as response:
                    assert response.status_code == 200
                    text, chunks = "", 0
                    for line in response.iter_lines():
                        if not line.startswith("data: {"):
                            continue
                        choices = json.loads(line[6:])["choices"]
                        text += choices[0]["delta"].get("content") or ""
                        chunks += 1
                        if leave_after[i] is not None and chunks >= leave_after[i]:
                            return
                    texts[i] = text
        except Exception as error:  # reported by the main thread
            errors.append((i, repr(error)))

    threads = [threading.Thread(target=stream, args=(i,)) for i in range(64)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    server.wait_idle(1.0)
    assert not errors
    stayed = {texts[i] for i in range(64) if leave_after[i] is None}
    assert len(stayed) == 1 and None not in stayed, "the same request must give the same text"


def test_all_leave_at_once(server):
    streams = [open_stream(server) for _ in range(24)]
    server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 16 and m["fastdeploy:num_requests_waiting"] == 8, 30)
    for stream in streams:
        stream.close()
    server.wait_idle(1.0)


def test_leaving_without_streaming_frees_too(server):
    with open_stream(server, {**endless(), "stream": False}):
        server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 1, 30)
    server.wait_idle(1.0)


def test_queue_limit(start_server):
    server = start_server("--max-model-len", "4096", "--max-num-seqs", "1", "--max-waiting-requests", "1")
    streams = []
    for waiting in range(2):
        streams.append(open_stream(server))
        server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 1 and m["fastdeploy:num_requests_waiting"] == waiting, 30)
    response = server.http.post("/v1/chat/completions", json={"messages": ask("hello")})
    assert response.status_code == 429
    assert response.json()["error"]["message"]
    for stream in streams:
        stream.close()
    server.wait_idle(5)


def test_max_concurrency(start_server):
    server = start_server("--max-concurrency", "1", "--max-model-len", "4096")
    with open_stream(server):
        server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 1, 30)
        response = server.http.post("/v1/chat/completions", json={"messages": ask("hello")})
        assert response.status_code == 429
        assert "--max-concurrency" in response.json()["error"]["message"]
        with pytest.raises(openai.RateLimitError):
            server.client.chat.completions.create(model="default", messages=ask("hello"))


def test_sigterm_drains(start_server):
    server = start_server(*BASE_FLAGS)
    body = endless(400)
    with httpx.Client(timeout=300) as http:
        request = http.build_request("POST", server.url + "/v1/chat/completions", json=body)
        response = http.send(request, stream=True)
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        refused = None
        deadline = time.monotonic() + 10
        while refused is None and time.monotonic() < deadline and server.process.poll() is None:
            try:
                status = httpx.get(server.url + "/health", timeout=5).status_code
                refused = status if status != 200 else None
            except httpx.TransportError:
                refused = "closed"
        tokens = sum('"content":"' in line for line in lines if line.startswith("data: {"))
        assert tokens > 100, "the running stream must finish"
    assert refused in (503, "closed", None)
    assert server.process.wait(timeout=20) == 0


def test_sigterm_when_idle_is_quick(start_server):
    server = start_server()
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 5


def test_drain_ends_at_its_deadline(start_server):
    server = start_server("--timeout-graceful-shutdown", "1", "--max-model-len", "8192")
    with httpx.Client(timeout=300) as http:
        request = http.build_request("POST", server.url + "/v1/chat/completions", json=endless(8000))
        response = http.send(request, stream=True)
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        text = "\n".join(lines)
    assert server.process.wait(timeout=30) == 0
    assert "error" in text or "[DONE]" in text


def test_second_signal_ends_at_once():
    server = Server("--max-model-len", "8192")
    with open_stream(server, endless(8000)) as stream:
        assert stream.recv(1)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=5) == 128 + signal.SIGINT


def test_port_in_use(server):
    result = subprocess.run([BINARY, "serve", MODEL, "--port", str(server.port)], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.returncode == 2
    assert str(server.port) in result.stderr and "--port" in result.stderr
    assert server.http.get("/health").status_code == 200


def test_small_cache_is_shared_and_given_back(start_server):
    """Less cache than the sequences want at once: they take turns, all finish, all pages return."""
    server = start_server("--num-kv-pages", "12", "--max-num-seqs", "8", "--max-model-len", "512", "--max-num-batched-tokens", "64")
    assert server.metrics()["fastdeploy:max_gpu_block_num"] == 12

    def story(seed):
        reply = server.client.chat.completions.create(model="default", messages=ask(STORY), temperature=0, max_tokens=300,
                                                      extra_body={**thinking(False), "ignore_eos": True})
        return reply.choices[0].message.content, reply.usage.completion_tokens

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = set(pool.map(story, range(8)))
    assert len(replies) == 1
    assert replies.pop()[1] == 300
    metrics = server.wait_for(is_idle, 2)
    assert metrics["fastdeploy:available_gpu_block_num"] == 12


def test_metrics_port_alone(start_server):
    server = start_server(metrics_port=free_port())
    assert httpx.get(f"http://127.0.0.1:{server.metrics_port}/metrics").status_code == 200
    assert httpx.get(f"http://127.0.0.1:{server.metrics_port}/v1/models").status_code == 404
