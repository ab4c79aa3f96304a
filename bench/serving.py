#!/usr/bin/env python3
"""Load on a server: N streams of random token ids through /v1/completions; tokens per second and latencies.

Usage:
  bench/serving.py --url http://127.0.0.1:8000 --vocab-size 103424                  a server that runs already
  bench/serving.py --binary build/cuda-portable/fastdeploy --model DIR [-- SERVE FLAGS]   one started for it, with these flags
  ... [--streams 256] [--requests 256] [--rate R] [--prompt-tokens 512] [--output-tokens 128]

--streams requests run at once, each replaced when it ends until --requests were sent; with --rate they are sent at random moments,
R a second on average, however many are running. Times are taken in the clients, which are processes of their own that only look for the
borders of events: client_busy_percent says how much of a core the busiest one needed.

ttft: from sending (connecting included) to the first token. itl: between two events. tpot: (last - first token) / (tokens - 1) of a
request. Prints a table and, last, one JSON line. Exit code 1 when a request failed.
"""

import argparse
import collections
import json
import multiprocessing
import os
import pathlib
import random
import selectors
import socket
import sys
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
from server_process import MODEL, ServerError, ServerProcess, find_binary  # noqa: E402

EVENT = b"\ndata: {"  # an event, also when its chunk's size line stands before it; [DONE] does not match
DONE = b"\ndata: [DONE]"
KEEP = 2048  # the end of a reply that holds its usage


class Stream:
    """One request on a socket of its own."""

    def __init__(self, index, due, address, request, timeout_s):
        self.index = index
        self.due = due
        self.sent = time.monotonic()
        self.times = []  # of events; the last one is the usage
        self.head = None
        self.tail = b""
        self.error = None
        self.socket = socket.create_connection(address, timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(request)
        self.socket.setblocking(False)
        self.deadline = self.sent + timeout_s

    def feed(self, data):
        """Bytes that just arrived; b"" at the end. True when the reply is complete."""
        now = time.monotonic()
        if not data:
            self.error = self.error or "the connection closed before [DONE]: " + self.tail[-300:].decode(errors="replace")
            return True
        window = self.tail + data
        if self.head is None:
            if b"\r\n\r\n" not in window:
                self.tail = window
                return False
            self.head, body = window.split(b"\r\n\r\n", 1)
            if self.head.split(b" ", 2)[1] != b"200":
                self.error = self.head.split(b"\r\n")[0].decode() + " " + body[:300].decode(errors="replace")
                return True
            window, seen = b"\n" + body, 0
        else:
            # An event's mark may lie across the border; one that lay wholly in the tail was counted before.
            seen = self.tail.count(EVENT)
        self.times.extend([now] * (window.count(EVENT) - seen))
        self.tail = window[-KEEP:]
        return DONE in self.tail

    def result(self):
        """What the parent needs, as plain values."""
        self.socket.close()
        usage = None
        mark = self.tail.rfind(b'"usage":{')
        if self.error is None and mark >= 0:
            usage = json.JSONDecoder().raw_decode(self.tail[mark + 8:].decode())[0]
        elif self.error is None:
            mark = self.tail.rfind(EVENT + b'"error"')
            self.error = self.tail[mark:mark + 300].decode(errors="replace").strip() if mark >= 0 else "no usage in the reply"
        events = self.times[:-1]
        if self.error is None and not events:
            self.error = "no token in the reply"
        return {"error": self.error, "due": self.due, "sent": self.sent, "times": events,
                "prompt_tokens": usage["prompt_tokens"] if usage else 0, "tokens": usage["completion_tokens"] if usage else 0}


def request_bytes(args, address, index):
    """Request number `index` of this seed; ids from the middle half of the vocabulary, where no special token lies."""
    rng = random.Random(f"{args.seed}/{index}")
    low, high = args.vocab_size // 4, args.vocab_size * 3 // 4
    body = json.dumps({"prompt": [rng.randrange(low, high) for _ in range(args.prompt_tokens)], "max_tokens": args.output_tokens,
                       "ignore_eos": True, "temperature": args.temperature, "stream": True, "stream_options": {"include_usage": True}})
    key = f"Authorization: Bearer {args.api_key}\r\n" if args.api_key else ""
    return (f"POST /v1/completions HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\n{key}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}").encode()


def client(args, address, work, streams, begin, pipe):
    """Sends work = [(index, seconds after begin)], at most `streams` at once where no rate is given; sends back the results."""
    waiting = collections.deque((index, due, request_bytes(args, address, index)) for index, due in work)
    pipe.send("ready")
    start = begin.recv()
    time.sleep(max(0.0, start - time.monotonic()))
    busy = time.process_time()
    results = []
    running = set()
    selector = selectors.DefaultSelector()

    def finish(stream):
        selector.unregister(stream.socket)
        running.discard(stream)
        results.append(stream.result())

    while waiting or running:
        now = time.monotonic()
        while waiting and start + waiting[0][1] <= now and (args.rate or len(running) < streams):
            index, due, request = waiting.popleft()
            try:
                stream = Stream(index, start + due, address, request, args.timeout)
            except OSError as error:
                results.append({"error": f"connecting: {error}", "due": start + due, "sent": now, "times": [], "prompt_tokens": 0,
                                "tokens": 0})
                continue
            selector.register(stream.socket, selectors.EVENT_READ, stream)
            running.add(stream)
        next_due = start + waiting[0][1] - time.monotonic() if waiting and args.rate else 1.0
        for key, _ in selector.select(max(0.0, min(next_due, 1.0))):
            stream = key.data
            try:
                data = stream.socket.recv(1 << 16)
            except BlockingIOError:
                continue
            except OSError as error:
                stream.error, data = str(error), b""
            if stream.feed(data):
                finish(stream)
        for stream in [s for s in running if s.deadline < now]:
            stream.error = f"no complete reply after {args.timeout} s"
            finish(stream)
    busy = (time.process_time() - busy) / max(time.monotonic() - start, 1e-9)
    pipe.send((results, busy))


def percentiles(values):
    """{"p50": ..., "p90": ..., "p99": ..., "mean": ...}: the smallest value that the share does not exceed."""
    ordered = sorted(values)
    picked = {f"p{p}": ordered[max(0, -(-len(ordered) * p // 100) - 1)] if ordered else 0.0 for p in (50, 90, 99)}
    return {**picked, "mean": sum(ordered) / len(ordered) if ordered else 0.0}


def run_load(args, address, requests, streams):
    """(results of all requests, busiest client's share of a core)"""
    rng = random.Random(args.seed)
    work, due = [], 0.0
    for index in range(requests):
        work.append((index, due))
        due += rng.expovariate(args.rate) if args.rate else 0.0
    processes = min(args.processes, streams, requests)
    context = multiprocessing.get_context("spawn")
    clients = []
    for i in range(processes):
        begin_in, begin_out = context.Pipe(duplex=False)
        pipe_in, pipe_out = context.Pipe(duplex=False)
        share = len(range(i, streams, processes))
        process = context.Process(target=client, args=(args, address, work[i::processes], share, begin_in, pipe_out), daemon=True)
        process.start()
        pipe_out.close()  # so that a client that dies ends the wait below
        clients.append((process, begin_out, pipe_in))
    for _, _, pipe in clients:
        pipe.recv()
    start = time.monotonic() + 0.2
    for _, begin, _ in clients:
        begin.send(start)
    results, busiest = [], 0.0
    for process, _, pipe in clients:
        some, busy = pipe.recv()
        results += some
        busiest = max(busiest, busy)
        process.join()
    return results, busiest


def summary(args, results, busiest):
    """The figures of a run; times in milliseconds."""
    good = [r for r in results if r["error"] is None]
    seconds = max((r["times"][-1] for r in good), default=0.0) - min((r["sent"] for r in results), default=0.0)
    in_ms = lambda values: {k: round(v * 1e3, 3) for k, v in percentiles(values).items()}  # noqa: E731
    tokens = sum(r["tokens"] for r in good)
    return {
        "streams": args.streams, "rate": args.rate, "requests": len(results), "errors": len(results) - len(good),
        "prompt_tokens": sum(r["prompt_tokens"] for r in good), "output_tokens": tokens,
        "seconds": round(seconds, 3) if good else 0.0,
        "output_tokens_per_s": round(tokens / seconds, 1) if good else 0.0,
        "requests_per_s": round(len(good) / seconds, 2) if good else 0.0,
        "ttft_ms": in_ms([r["times"][0] - r["sent"] for r in good]),
        "tpot_ms": in_ms([(r["times"][-1] - r["times"][0]) / (r["tokens"] - 1) for r in good if r["tokens"] > 1]),
        "itl_ms": in_ms([b - a for r in good for a, b in zip(r["times"], r["times"][1:])]),
        "e2e_ms": in_ms([r["times"][-1] - r["sent"] for r in good]),
        "client_busy_percent": round(busiest * 100, 1),
        "client_late_ms": round(max((r["sent"] - r["due"] for r in results), default=0.0) * 1e3, 3) if args.rate else None,
    }


def print_table(figures):
    print(f"{figures['requests']} requests, {figures['errors']} failed; {figures['prompt_tokens']} tokens in, "
          f"{figures['output_tokens']} out, {figures['seconds']:.2f} s")
    print(f"{figures['output_tokens_per_s']:.0f} output tokens/s, {figures['requests_per_s']:.2f} requests/s; "
          f"busiest client {figures['client_busy_percent']:.0f} % of a core")
    print(f"{'ms':6}{'p50':>10}{'p90':>10}{'p99':>10}{'mean':>10}")
    for name in ("ttft", "tpot", "itl", "e2e"):
        row = figures[name + "_ms"]
        print(f"{name:6}" + "".join(f"{row[column]:10.2f}" for column in ("p50", "p90", "p99", "mean")))


def measure(args, address):
    if args.warmup:
        warm = argparse.Namespace(**{**vars(args), "output_tokens": min(args.output_tokens, 8), "rate": 0.0, "seed": args.seed + 1})
        run_load(warm, address, args.warmup, min(args.warmup, args.streams))
    results, busiest = run_load(args, address, args.requests, args.streams)
    figures = summary(args, results, busiest)
    print_table(figures)
    for error, count in collections.Counter(r["error"] for r in results if r["error"]).most_common(5):
        print(f"{count} x {error}", file=sys.stderr)
    print(json.dumps(figures))
    return 1 if figures["errors"] or not results else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="of a running server, for example http://127.0.0.1:8000")
    parser.add_argument("--api-key")
    parser.add_argument("--binary", default=find_binary(), help="program that serves when there is no --url")
    parser.add_argument("--model", default=MODEL, help="folder of the model; its config.json has the vocabulary's size")
    parser.add_argument("--vocab-size", type=int, help="instead of the one in config.json")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--requests", type=int, help="default: as many as streams")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0: as soon as a stream is free")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=8, help="requests of 8 tokens before the clock starts")
    parser.add_argument("--processes", type=int, default=max(1, min(8, (os.cpu_count() or 2) // 2)), help="clients")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds of one request")
    parser.add_argument("serve_flags", nargs="*", help="after --: flags of fastdeploy serve")
    args = parser.parse_args()
    args.requests = args.requests or args.streams
    if args.vocab_size is None:
        config = json.loads((pathlib.Path(args.model) / "config.json").read_text(encoding="utf-8"))
        args.vocab_size = config.get("text_config", config)["vocab_size"]

    if args.url:
        url = urllib.parse.urlsplit(args.url)
        return measure(args, (url.hostname, url.port or 80))
    if args.binary is None:
        parser.error("no server program; --url names a running server, --binary a program, make portable builds one")
    try:
        with ServerProcess(args.binary, *args.serve_flags, model=args.model, start_timeout_s=600) as server:
            return measure(args, ("127.0.0.1", server.port))
    except ServerError as error:
        print("serving:", error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
