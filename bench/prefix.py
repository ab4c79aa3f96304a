#!/usr/bin/env python3
"""What the prefix cache saves: time to first token of a prompt, of the same prompt again, of the next turn and of another end.

    python3 bench/prefix.py [--prompt-tokens 8192] [--runs 2] [--swap-space GIB] [--model FOLDER] [--binary PATH] [-- FLAGS]

Without --model: ERNIE-4.5-0.3B's dimensions, random weights and the demo's tokenizer. Each run has a prompt of its own, random token ids,
over HTTP with one client. "next turn": the prompt, its answer and 32 tokens more; "fork": the last 32 tokens are others. FLAGS go to
`fastdeploy serve`. With --swap-space the cache holds one such prompt and little more: "from host" is the first prompt again after another
one took its pages. The same prompt must have the same answer (on a GPU with --deterministic among FLAGS). Prints one line a kind and its share of the first; ends with 1 when the second is above --bar. Standard library only.
"""

import argparse
import http.client
import json
import pathlib
import random
import re
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from server_process import MODEL, ServerProcess  # noqa: E402

DIMENSIONS = ROOT / "bench" / "configs" / "ernie-4.5-0.3b"
NEW_TOKENS = 32


def with_tokenizer(folder):
    """The dimensions with the files of the demo that have no weights."""
    for path in pathlib.Path(MODEL).iterdir():
        if path.suffix != ".safetensors" and path.name not in ("config.json", "generation_config.json"):
            (folder / path.name).symlink_to(path)
    (folder / "config.json").symlink_to(DIMENSIONS / "config.json")
    return folder


def ask(server, prompt, output_tokens):
    """(seconds to the first token, cached tokens, ids of the answer)"""
    body = json.dumps({"prompt": prompt, "max_tokens": output_tokens, "ignore_eos": True, "temperature": 0, "stream": True,
                       "return_token_ids": True, "stream_options": {"include_usage": True}})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    begin = time.monotonic()
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"prefix.py: {response.status}: {response.read().decode()}")
    lines = [(time.monotonic() - begin, line) for line in response]  # read before any is parsed: the first repeats the prompt's ids
    first, usage, ids = None, None, []
    for arrived, line in lines:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            got = choice.get("completion_token_ids") or choice.get("token_ids") or []
            if got and first is None:
                first = arrived
            ids += got
    connection.close()
    if first is None or usage is None or len(ids) != output_tokens:
        raise SystemExit(f"prefix.py: {len(ids)} tokens of {output_tokens} in the reply")
    return first, usage["prompt_tokens_details"]["cached_tokens"], ids


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt-tokens", type=int, default=8192)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--model", help="a folder with weights; default: random ones")
    parser.add_argument("--vocab-size", type=int, default=1500, help="prompts have ids below it")
    parser.add_argument("--bar", type=float, default=0.05, help="most that the second may take of the first")
    parser.add_argument("--swap-space", type=float, default=0, help="GiB of host memory; 0: no such row")
    parser.add_argument("--binary", default=str(ROOT / "build/release/fastdeploy"))
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args()
    rng = random.Random(1)
    on_gpu = any("cuda" in flag for flag in args.flags)
    others = {"second": 0, "from host": 0}  # answers that differ from the first; random weights are quick to do so
    kinds = {name: [] for name in ("first", "second", "next turn", "fork", *(["from host"] if args.swap_space else []))}
    with tempfile.TemporaryDirectory() as temporary:
        model = args.model or with_tokenizer(pathlib.Path(temporary))
        flags = ["--max-model-len", str(args.prompt_tokens + 256), *([] if args.model else ["--load-format", "dummy"]), *args.flags]
        if args.swap_space:
            flags += ["--swap-space", str(args.swap_space), "--num-kv-pages", str((args.prompt_tokens + 256) // 64 + 4)]
        with ServerProcess(args.binary, *flags, model=model) as server:
            def some(count):
                return [rng.randrange(300, args.vocab_size) for _ in range(count)]

            ask(server, some(64), 8)  # first touch of buffers
            for _ in range(args.runs):
                prompt = some(args.prompt_tokens)
                first = ask(server, prompt, 8)
                kinds["first"].append(first)
                kinds["second"].append(ask(server, prompt, 8))
                kinds["next turn"].append(ask(server, prompt + first[2] + some(NEW_TOKENS), 8))
                kinds["fork"].append(ask(server, prompt[:-NEW_TOKENS] + some(NEW_TOKENS), 8))
                if args.swap_space:
                    ask(server, some(args.prompt_tokens), 8)
                    kinds["from host"].append(ask(server, prompt, 8))
                for kind in ("second", "from host"):
                    if kinds.get(kind) and kinds[kind][-1][2] != first[2]:
                        others[kind] += 1
            metrics = dict(re.findall(r"^fastdeploy:(\w+) (\S+)$", server.get("/metrics")[1], re.M))
    base = statistics.median(t for t, _, _ in kinds["first"])
    for name, runs in kinds.items():
        seconds = statistics.median(t for t, _, _ in runs)
        print(f"{name:>9}: {seconds * 1e3:9.1f} ms to the first token, {100 * seconds / base:6.2f} % of the first, "
              f"{statistics.median(c for _, c, _ in runs):.0f} tokens found", flush=True)
    if args.swap_space:
        print(f"pages out {metrics['swap_out_block_num_total']}, in {metrics['swap_in_block_num_total']}, "
              f"saved by the host's: {float(metrics['prefix_cpu_saved_seconds_total']):.1f} s")
    print(f"saved, by the server's own count: {float(metrics['prefix_saved_seconds_total']):.1f} s")
    if any(others.values()):
        print(f"answered otherwise: {others}")
        if not on_gpu or "--deterministic" in args.flags:
            raise SystemExit("prefix.py: the same prompt was answered otherwise")
    share = statistics.median(t for t, _, _ in kinds["second"]) / base
    if share > args.bar:
        raise SystemExit(f"prefix.py: the second takes {100 * share:.1f} % of the first, the bar is {100 * args.bar:.0f} %")


if __name__ == "__main__":
    main()
