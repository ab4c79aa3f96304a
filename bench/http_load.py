"""What connections cost the server: idle ones in memory, refused ones in time, many at once in all. One line of JSON for each.

    python3 bench/http_load.py --binary build/release/fastdeploy idle --connections 10000
    python3 bench/http_load.py --binary build/release/fastdeploy refuse
    python3 bench/http_load.py --binary build/release/fastdeploy full
    python3 bench/http_load.py --binary build/release/fastdeploy many --requests 1000 --concurrency 200
    python3 bench/http_load.py --binary build/release/fastdeploy slow --connections 5000

The standard library alone; the server is started here, with the demo model.
"""

import argparse
import json
import os
import pathlib
import resource
import selectors
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLAIN = {"enable_thinking": False}


class Server:
    def __init__(self, binary, model, *flags):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen([binary, "serve", "--model", model, "--port", str(self.port), "--no-access-log", *flags],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                if status(self.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) == 200:
                    return
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=120)

    def ask(self, request):
        with self.connect() as s:
            s.sendall(request)
            return read(s)

    def memory_bytes(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * 4096

    def stop(self):
        self.process.terminate()
        self.process.wait()


def read(s):
    """One response with a Content-Length."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = s.recv(65536)
        if not part:
            return answer
        answer += part
    head, _, rest = answer.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
    while len(rest) < length:
        rest += s.recv(65536)
    return head + b"\r\n\r\n" + rest


def status(answer):
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def post(body):
    data = json.dumps(body).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data


def story(max_tokens):
    return post({"messages": [{"role": "user", "content": "Tell a story about Li Wei in Paris."}], "max_tokens": max_tokens, "ignore_eos": True, "stream": True, **PLAIN})


def sum_of(a, b):
    return post({"messages": [{"role": "user", "content": f"Compute {a} + {b}."}], "temperature": 0, **PLAIN})


def idle(args, server):
    for _ in range(50):
        server.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    server.ask(sum_of(1, 2))
    before = server.memory_bytes()
    sockets, begin = [], time.monotonic()
    for _ in range(args.connections):
        sockets.append(server.connect())
        sockets[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status(read(sockets[-1])) == 200
    seconds = time.monotonic() - begin
    growth = server.memory_bytes() - before
    return {"connections": args.connections, "growth_mb": round(growth / 1e6, 1), "bytes_each": round(growth / args.connections), "seconds": round(seconds, 1),
            "answers_another": status(server.ask(sum_of(45, 11)))}


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def refuse(args, server):
    """refuse: by --max-concurrency, from the header alone; full: by the engine's queue, after the request was read."""
    streams = []
    for _ in range(4):
        streams.append(server.connect())
        streams[-1].sendall(story(4000))
        streams[-1].recv(1)
    times = []
    with server.connect() as s:
        for _ in range(200):
            begin = time.perf_counter()
            s.sendall(sum_of(1, 2))
            answer = read(s)
            times.append(time.perf_counter() - begin)
            if status(answer) == 429:
                assert b"Retry-After" in answer
            else:
                raise AssertionError(answer)
            if b"Connection: close" in answer:
                s.close()
                s = server.connect()
    return {"refused": len(times), "p50_ms": round(percentile(times, 0.5) * 1e3, 2), "p99_ms": round(percentile(times, 0.99) * 1e3, 2), "max_ms": round(max(times) * 1e3, 2)}


def many(args, server):
    lock, answered, right = threading.Lock(), [0] * args.requests, [0]
    numbers = iter(range(args.requests))

    def work():
        with server.connect() as s:
            while True:
                with lock:
                    k = next(numbers, None)
                if k is None:
                    return
                a, b = 10 + k % 40, 10 + k // 40 % 40
                s.sendall(sum_of(a, b))
                answer = read(s)
                assert status(answer) == 200, answer
                text = json.loads(answer.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"]
                with lock:
                    answered[k] += 1
                    right[0] += text == str(a + b)

    begin = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(args.concurrency)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    seconds = time.monotonic() - begin
    return {"requests": args.requests, "concurrency": args.concurrency, "answered_once": answered.count(1), "right": right[0], "seconds": round(seconds, 2),
            "requests_per_s": round(args.requests / seconds, 1)}


def slow(args, server):
    """Headers at a byte a second; how long others wait meanwhile, and that all are cut."""
    before = server.memory_bytes()
    selector = selectors.DefaultSelector()
    for _ in range(args.connections):
        s = server.connect()
        s.sendall(b"GET /health HTTP/1.1\r\nX-A: ")
        s.setblocking(False)
        selector.register(s, selectors.EVENT_READ)
    most, times, cut, last, begin = server.memory_bytes(), [], 0, 0.0, time.monotonic()
    while selector.get_map() and time.monotonic() - begin < 60:
        if time.monotonic() - last > 1:
            last = time.monotonic()
            for key in list(selector.get_map().values()):
                try:
                    key.fileobj.send(b"a")
                except OSError:
                    pass
            start = time.perf_counter()
            assert status(server.ask(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) == 200
            times.append(time.perf_counter() - start)
            most = max(most, server.memory_bytes())
        for key, _ in selector.select(0.1):
            try:
                part = key.fileobj.recv(65536)
            except OSError:
                part = b""
            if not part:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                cut += 1
    return {"connections": args.connections, "cut": cut, "seconds": round(time.monotonic() - begin, 1), "growth_mb": round((most - before) / 1e6, 1),
            "others_max_ms": round(max(times) * 1e3, 1)}


KINDS = {"idle": (idle, ()), "refuse": (refuse, ("--max-concurrency", "4")),
         "full": (refuse, ("--max-num-seqs", "4", "--max-waiting-requests", "0")), "many": (many, ()), "slow": (slow, ("--header-timeout", "10"))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--binary", default=str(ROOT / "build/release/fastdeploy"))
    parser.add_argument("--model", default=str(ROOT / "models/ernie-4.5-vl-tiny"))
    parser.add_argument("--connections", type=int, default=10000)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=200)
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    measure, flags = KINDS[args.kind]
    server = Server(os.path.abspath(args.binary), args.model, "--max-model-len", "4096", *flags)
    try:
        print(json.dumps({"bench": "http_load", "kind": args.kind, **measure(args, server)}))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
