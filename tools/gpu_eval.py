#!/usr/bin/env python3
"""Asks a real server all questions of tests/eval in every engine mode, at several concurrencies.

Usage: tools/gpu_eval.py [--binary build/cuda-portable/fastdeploy] [--device cuda:0] [--concurrency 1,16,128] [--modes NAME,NAME]
Python's standard library only. One line a mode and concurrency; exit code 1 when a bar is missed, a page leaks or a server ends badly.
"""

import argparse
import concurrent.futures
import http.client
import json
import pathlib
import re
import sys
import threading
import time

from server_process import MODEL, ROOT, ServerError, ServerProcess, find_binary

sys.path.insert(0, str(ROOT / "tests" / "eval"))
from eval_set import EXACT_AT_LEAST, RIGHT_AT_LEAST, questions, read_reply, request_body, score  # noqa: E402

# These change how the host works, not what is computed: a request that runs alone has the same tokens with and without them.
HOST_FLAGS = ("--no-overlap", "--no-cuda-graphs")
MODES = {
    "bf16": [],
    "bf16 no-overlap": ["--no-overlap"],
    "bf16 no-graphs": ["--no-cuda-graphs"],
    "bf16 no-overlap no-graphs": ["--no-overlap", "--no-cuda-graphs"],
    "bf16 budget 4096": ["--max-num-batched-tokens", "4096"],
    "bf16 deterministic": ["--deterministic"],
    "float32": ["--dtype", "float32"],
    "fp8 kv": ["--kv-cache-dtype", "fp8"],
    "int8 kv": ["--kv-cache-dtype", "int8"],
    "float32 fp8 kv": ["--dtype", "float32", "--kv-cache-dtype", "fp8"],
    "wint8": ["--quantization", "wint8"],
    "wint4": ["--quantization", "wint4"],
    "wint4 groups of 32": ["--quantization", '{"quantization": "wint4", "group_size": 32}'],
}
# A flag that stands again in a mode's own list is left out here: flags may not repeat.
BASE_FLAGS = {"--max-model-len": "4096", "--max-num-seqs": "128", "--max-num-batched-tokens": "384",
              "--limit-mm-per-prompt": '{"image": 100, "video": 100}', "--reasoning-parser": "ernie-45-vl"}
REQUEST_TIMEOUT_S = 120


def flags_of(mode, device):
    flags = ["--device", device, *MODES[mode]]
    for name, value in BASE_FLAGS.items():
        if name not in flags:
            flags += [name, value]
    return flags


def ask_all(port, bodies, concurrency):
    """The replies in the order of the bodies; every thread keeps one connection."""
    local = threading.local()

    def ask(body):
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_TIMEOUT_S)
        local.connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = local.connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise ServerError(f"status {response.status}: {text.decode(errors='replace')[:500]}")
        return read_reply(json.loads(text))

    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(ask, bodies))


def wait_idle(server, timeout_s=5):
    """Raises unless nothing runs and every page is free within timeout_s."""
    deadline = time.monotonic() + timeout_s
    while True:
        metrics = dict(re.findall(r"^fastdeploy:([a-z_]+) (\S+)$", server.get("/metrics")[1], re.M))
        if (float(metrics["num_requests_running"]) == 0 == float(metrics["num_requests_waiting"]) and
                metrics["available_gpu_block_num"] == metrics["max_gpu_block_num"]):
            return
        if time.monotonic() > deadline:
            raise ServerError(f"not idle after the last reply: {metrics}")
        time.sleep(0.02)


def run_mode(mode, args, asked, bodies):
    """Prints the mode's lines; ([what failed, as sentences], the replies at the first concurrency)."""
    failures = []
    single = None
    with ServerProcess(args.binary, *flags_of(mode, args.device), model=args.model) as server:
        for concurrency in args.concurrency:
            begin = time.monotonic()
            replies = ask_all(server.port, bodies, concurrency)
            seconds = time.monotonic() - begin
            wait_idle(server)
            single = single or replies
            wrong, inexact, prompts = score(asked, replies)
            right, exact = len(asked) - len(wrong), len(asked) - len(inexact)
            tokens = sum(count for _, count, _ in replies)
            same = sum(a == b for a, b in zip(single, replies))
            print(f"{mode:26} {concurrency:11} {right:6} {exact:12} {same:9} {seconds:8.2f} {tokens / seconds:9.0f}", flush=True)
            where = f"{mode} at concurrency {concurrency}"
            if prompts:
                failures.append(f"{where}: other prompt lengths than transformers': {prompts[:5]}")
            if right < RIGHT_AT_LEAST:
                failures.append(f"{where}: {right} right, the bar is {RIGHT_AT_LEAST}; wrong: {wrong[:5]}")
            if exact < EXACT_AT_LEAST:
                failures.append(f"{where}: {exact} token-exact, the bar is {EXACT_AT_LEAST}; others: {inexact[:3]}")
    return failures, single


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=find_binary(), help="default: FASTDEPLOY_BIN, build/cuda-portable or build/cuda")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--concurrency", default="1,16,128", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--modes", default=",".join(MODES), help="names of: " + "; ".join(MODES))
    args = parser.parse_args()
    if args.binary is None or not pathlib.Path(args.binary).is_file():
        parser.error("no server program; make portable builds one, --binary names one")
    modes = args.modes.split(",")
    if unknown := [mode for mode in modes if mode not in MODES]:
        parser.error(f"unknown mode {unknown[0]!r}; known are {', '.join(MODES)}")

    asked = questions()
    bodies = [json.dumps(request_body(question)) for question in asked]
    print(f"{'of ' + str(len(asked)) + ' questions':26} concurrency  right  token-exact same as 1  seconds  tokens/s")
    failures = []
    plain = {}  # flags that change the computation -> (mode, its replies)
    for mode in modes:
        try:
            failed, replies = run_mode(mode, args, asked, bodies)
            failures += failed
            computation = tuple(flag for flag in MODES[mode] if flag not in HOST_FLAGS)
            first, expected = plain.setdefault(computation, (mode, replies))
            if args.concurrency[0] == 1 and replies != expected:
                failures.append(f"{mode}: {sum(a != b for a, b in zip(expected, replies))} replies differ from those of {first}")
        except (ServerError, OSError, http.client.HTTPException) as error:
            failures.append(f"{mode}: {error}")
            print(f"{mode:26} failed")
    for failure in failures:
        print("gpu_eval:", failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
