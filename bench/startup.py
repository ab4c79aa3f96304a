#!/usr/bin/env python3
"""Time from exec to the first token, and peak memory, of the server and of `fastdeploy run` with a picture.

Usage: bench/startup.py [--runs N] [--binary build/release/fastdeploy] [--model models/ernie-4.5-vl-tiny] [--prompt-tokens N] [-- FLAGS]
With --prompt-tokens the server alone is measured, with a prompt of so many token ids. FLAGS go to `fastdeploy serve`. The server is asked over HTTP as soon as its port answers; the clock starts before exec. Prints one line a way, median and worst.
"""

import argparse
import base64
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
PICTURE = os.path.join(ROOT, "tests", "eval", "media", "describe-000-0.png")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def peak_rss_mb(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def picture_request():
    with open(PICTURE, "rb") as f:
        url = "data:image/png;base64," + base64.b64encode(f.read()).decode()
    body = json.dumps({"stream": True, "max_tokens": 64, "temperature": 0, "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is in the picture?"}]}]})
    return "/v1/chat/completions", body


def tokens_request(count):
    return "/v1/completions", json.dumps({"stream": True, "max_tokens": 1, "temperature": 0, "prompt": [5 + i % 1000 for i in range(count)]})


def time_server(binary, model, request, flags):
    """(seconds to the first token, peak resident MB)"""
    path, body = request
    port = free_port()
    begin = time.monotonic()
    server = subprocess.Popen([binary, "serve", "--model", model, "--port", str(port), *flags], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        first = None
        while first is None and time.monotonic() < begin + 30:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
            except OSError:
                time.sleep(0.002)
                continue
            if response.status != 200:  # still loading
                time.sleep(0.002)
                continue
            for line in response:
                if line.startswith(b"data: {"):
                    choices = json.loads(line[6:])["choices"]
                    if choices and (path == "/v1/completions" or choices[0]["delta"].get("content")):
                        first = first or time.monotonic() - begin
        return first, peak_rss_mb(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)


def time_run(binary, model):
    begin = time.monotonic()
    process = subprocess.Popen([binary, "run", model, "What is in the picture?", "--image", PICTURE, "--temperature", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.read(1)
    first = time.monotonic() - begin
    rss = peak_rss_mb(process.pid)
    process.stdout.read()
    process.wait()
    return first, rss


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--binary", default=os.path.join(ROOT, "build", "release", "fastdeploy"))
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "ernie-4.5-vl-tiny"))
    parser.add_argument("--prompt-tokens", type=int, default=0)
    parser.add_argument("flags", nargs="*")
    arguments = parser.parse_args()
    request = tokens_request(arguments.prompt_tokens) if arguments.prompt_tokens else picture_request()
    ways = [("serve", lambda binary, model: time_server(binary, model, request, arguments.flags))]
    if not arguments.prompt_tokens:
        ways.append(("run", time_run))
    for name, measure in ways:
        results = [measure(arguments.binary, arguments.model) for _ in range(arguments.runs)]
        seconds = [r[0] for r in results]
        print(f"{name}: exec to first token {statistics.median(seconds):.3f} s median, {max(seconds):.3f} s worst of "
              f"{len(results)}; peak RSS {max(r[1] for r in results):.0f} MB")


if __name__ == "__main__":
    main()
