#!/usr/bin/env python3
"""A long prompt through the real server: how long it takes, what it holds, and what another client waits meanwhile.

    python3 bench/long_context.py [--prompt-tokens 120000] [--layers 18] [--every 20] [--bar 3] [--dimensions FOLDER] [--binary PATH] [-- FLAGS]

ERNIE-4.5-0.3B's dimensions (or those of --dimensions), random weights and the demo's tokenizer; --layers N makes it shallower. A prompt of random token ids is
sent; while it is computed another client sends a short request every --every seconds, each with a prompt of its own. Shown and
checked, ending with 1 where it does not hold:

    memory   the server's peak of resident memory is at least the weights and pages of the plan that it printed at start, all of which
             the prompt touches, and at most the whole plan and --process-mb for program, tokenizer and stacks. On a GPU what
             nvidia-smi shows as used, less what was before, and --process-mb is for CUDA's context and the program's kernels
    chunks   the prompt goes through in steps of at most the budget, and every step of the time between computes a part of it
    meanwhile  the median short request takes at most --bar times what it takes alone (0: it is only shown)

FLAGS go to `fastdeploy serve`. Standard library only.
"""

import argparse
import http.client
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from server_process import MODEL, ServerProcess  # noqa: E402

DIMENSIONS = ROOT / "bench" / "configs" / "ernie-4.5-0.3b"
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
PAGE_TOKENS = 64


def make_model(folder, dimensions, layers):
    """The dimensions with the files of the demo that have no weights."""
    for path in pathlib.Path(MODEL).iterdir():
        if path.suffix != ".safetensors" and path.name not in ("config.json", "generation_config.json"):
            (folder / path.name).symlink_to(path)
    config = json.loads((pathlib.Path(dimensions) / "config.json").read_text(encoding="utf-8"))
    if layers:
        config["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def ask(port, prompt, output_tokens, timeout_s):
    """Seconds until the whole answer is there."""
    body = json.dumps({"prompt": prompt, "max_tokens": output_tokens, "ignore_eos": True, "temperature": 0})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    begin = time.monotonic()
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    seconds = time.monotonic() - begin
    connection.close()
    if response.status != 200 or answer["usage"]["completion_tokens"] != output_tokens:
        raise SystemExit(f"long_context.py: {response.status}: {json.dumps(answer)[:500]}")
    return seconds


def peak_bytes(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def gpu_bytes():
    """Of the first GPU, by anybody."""
    answer = subprocess.run(["nvidia-smi", "-i", "0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True)
    return int(answer.stdout) * 1024 * 1024


def planned(log):
    """Bytes by part, from the line of the memory plan."""
    line = re.search(r"memory: (.*?available)", log)[1]
    sizes = dict(re.findall(r"(weights|key/value pages|step buffers|workspace|=) ([\d.]+ [kMGT]?B)", line))
    return {name: float(size.split()[0]) * UNITS[size.split()[1]] for name, size in sizes.items()}, line


def read_steps(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt-tokens", type=int, default=120_000)
    parser.add_argument("--dimensions", default=str(DIMENSIONS), help="a folder with a config.json")
    parser.add_argument("--layers", type=int, default=0, help="0: those of the dimensions")
    parser.add_argument("--short-prompt-tokens", type=int, default=64)
    parser.add_argument("--short-output-tokens", type=int, default=16)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between short requests")
    parser.add_argument("--bar", type=float, default=3.0, help="most that the median short request may take, times alone; 0: no bar")
    parser.add_argument("--process-mb", type=float, help="default: 120, on a GPU 800")
    parser.add_argument("--timeout", type=float, default=6 * 3600.0)
    parser.add_argument("--binary", default=str(ROOT / "build/release/fastdeploy"))
    parser.add_argument("--step-log", help="keep the server's log of steps here")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args()
    on_gpu = any(flag.startswith("cuda") or flag.startswith("--device=cuda") for flag in args.flags)
    process_mb = args.process_mb if args.process_mb is not None else 800.0 if on_gpu else 120.0
    used_before = gpu_bytes() if on_gpu else 0
    rng = random.Random(1)

    def some(count):
        return [rng.randrange(300, 1500) for _ in range(count)]

    # Pages for the long prompt and one short request, so that every page of the plan is used.
    short_tokens = args.short_prompt_tokens + args.short_output_tokens
    pages = -(-(args.prompt_tokens + 1) // PAGE_TOKENS) + -(-short_tokens // PAGE_TOKENS) + 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        step_log = pathlib.Path(args.step_log or folder / "steps.jsonl")
        (folder / "model").mkdir()
        flags = ["--max-model-len", str(args.prompt_tokens + PAGE_TOKENS), "--num-kv-pages", str(pages), "--max-num-seqs", "4", "--load-format",
                 "dummy", "--step-log", str(step_log), *args.flags]
        with ServerProcess(args.binary, *flags, model=make_model(folder / "model", args.dimensions, args.layers)) as server:
            def short():
                return ask(server.port, some(args.short_prompt_tokens), args.short_output_tokens, args.timeout)

            first = short()  # first touch of buffers
            alone = statistics.median(short() for _ in range(3 if first > 0.2 else 15))
            sent_at = time.time()
            prompt, took, failed = some(args.prompt_tokens), [], []

            def send_long():
                try:
                    took.append(ask(server.port, prompt, 1, args.timeout))
                except BaseException as error:  # shown by the main thread
                    failed.append(error)

            client = threading.Thread(target=send_long)
            begin = time.monotonic()
            client.start()
            meanwhile = []  # (second since the long prompt, seconds, whether the long prompt still ran at its end)
            while client.is_alive():
                client.join(args.every)
                if client.is_alive():
                    at = time.monotonic() - begin
                    seconds = short()
                    meanwhile.append((at, seconds, client.is_alive()))
            client.join()
            if failed:
                raise SystemExit(f"long_context.py: the long prompt failed: {failed[0]}")
            peak = gpu_bytes() - used_before if on_gpu else peak_bytes(server.process.pid)
            plan, plan_line = planned(server.log_tail(10_000))
            limit = int(re.search(r"(\d+) tokens a step", server.log_tail(10_000))[1])
        steps = [s for s in read_steps(step_log) if s["time"] >= sent_at]  # complete once the server has ended

    # The long prompt's own steps: from its first chunk until its tokens are through.
    shorts = len(meanwhile)
    total = sum(s["tokens"] for s in steps)
    flowing = steps[: max(i for i, s in enumerate(steps) if s["prefills"] > 0) + 1]
    ms = sorted(s["wall_ms"] for s in flowing)
    resident = plan["weights"] + plan["key/value pages"]
    during = [seconds for _, seconds, still in meanwhile if still]
    out = {"prompt_tokens": args.prompt_tokens, "layers": args.layers or "all", "prefill_s": round(took[0], 2), "steps": len(flowing),
           "largest_step_tokens": max(s["tokens"] for s in flowing), "budget_tokens": limit, "median_step_ms": round(statistics.median(ms), 1),
           "longest_step_ms": ms[-1], "last_chunk_ms": flowing[-1]["wall_ms"], "peak_mb": round(peak / 1e6, 1),
           "planned_mb": round(plan["="] / 1e6, 1), "weights_and_pages_mb": round(resident / 1e6, 1), "alone_ms": round(alone * 1e3, 1),
           "meanwhile_ms": [round(s * 1e3, 1) for s in during], "answered_meanwhile": len(during), "sent_meanwhile": shorts}
    problems = []
    if not resident * 0.99 <= peak <= plan["="] * 1.01 + process_mb * 1e6:
        problems.append(f"peak memory is {peak / 1e6:.1f} MB; planned: {plan_line}")
    expected = args.prompt_tokens + shorts * short_tokens
    if out["largest_step_tokens"] > limit or not args.prompt_tokens <= total <= expected + PAGE_TOKENS:
        problems.append(f"steps of up to {out['largest_step_tokens']} tokens, {total} in all, expected {expected}, the budget is {limit}")
    if idle := [s["step"] for s in flowing if s["tokens"] == 0 or not s["ok"]]:
        problems.append(f"steps {idle[:10]} computed nothing or failed")
    if during:
        out["median_times_alone"] = round(statistics.median(during) / alone, 2)
        out["worst_times_alone"] = round(max(during) / alone, 2)
    if args.bar > 0:
        if not during:
            problems.append("no short request was answered before the long prompt was through")
        elif out["median_times_alone"] > args.bar:
            problems.append(f"a short request took {out['median_times_alone']} times as long as alone, the bar is {args.bar}")
    out["problems"] = problems
    if args.json:
        print(json.dumps(out))
    else:
        for key, value in out.items():
            print(f"{key:>22}: {value}")
        print(plan_line)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
