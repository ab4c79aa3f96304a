#!/usr/bin/env python3
"""Pictures encoded together against one by one: pictures and patches per second of the encoder, from the server's own metrics.

Usage: bench/encoder.py [--pictures N] [--side PIXELS] [--budgets 1,256,1024] [--runs N] [--tower CONFIG_FOLDER] [--binary PATH] [-- FLAGS]
One server for each budget (--max-encoder-batch-tokens), without a cache; each run sends the same N pictures of noise in one request, the
best run counts. --tower: the bundled model with the vision tower of that config.json, random weights. FLAGS go to `fastdeploy serve`.
"""

import argparse
import base64
import http.client
import json
import pathlib
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from png_file import noise_png  # noqa: E402
from server_process import MODEL, ServerProcess  # noqa: E402


def with_tower(config_folder, folder):
    """The bundled model's files beside a config.json with another vision tower."""
    for path in pathlib.Path(MODEL).iterdir():
        if path.name != "config.json" and path.suffix != ".safetensors":
            (folder / path.name).symlink_to(path)
    config = json.loads((pathlib.Path(MODEL) / "config.json").read_text(encoding="utf-8"))
    config["vision_config"] = json.loads((pathlib.Path(config_folder) / "config.json").read_text(encoding="utf-8"))["vision_config"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def encoder_totals(server):
    text = server.get("/metrics")[1]
    return {name: float(re.search(rf"^fastdeploy:encoder_{name}_total (\S+)$", text, re.M).group(1)) for name in ("items", "tokens", "seconds")}


def ask(server, pictures):
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(p).decode()}} for p in pictures]
    body = json.dumps({"messages": [{"role": "user", "content": content + [{"type": "text", "text": "What is it?"}]}], "max_tokens": 1})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    reply = response.read()
    if response.status != 200:
        raise SystemExit(f"encoder.py: {response.status}: {reply.decode()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--side", type=int, default=112, help="width and height in pixels")
    parser.add_argument("--budgets", default="1,256,1024")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tower", help="folder of a config.json whose vision tower is taken, with random weights")
    parser.add_argument("--binary", default=str(ROOT / "build/release/fastdeploy"))
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args()
    pictures = [noise_png(seed, args.side) for seed in range(args.pictures)]
    with tempfile.TemporaryDirectory() as temporary:
        model = with_tower(args.tower, pathlib.Path(temporary)) if args.tower else MODEL
        for budget in args.budgets.split(","):
            flags = ["--encoder-cache-tokens", "0", "--no-enable-prefix-caching", "--max-encoder-batch-tokens", budget, "--limit-mm-per-prompt",
                     json.dumps({"image": args.pictures}), *(["--load-format", "dummy"] if args.tower else []), *args.flags]
            with ServerProcess(args.binary, *flags, model=model) as server:
                best = None
                for _ in range(args.runs):
                    before = encoder_totals(server)
                    ask(server, pictures)
                    run = {name: value - before[name] for name, value in encoder_totals(server).items()}
                    best = run if best is None or run["seconds"] < best["seconds"] else best
            print(f"--max-encoder-batch-tokens {budget:>5}: {best['items']:.0f} pictures, {best['tokens']:.0f} tokens in {1e3 * best['seconds']:.1f} ms: "
                  f"{best['items'] / best['seconds']:.1f} pictures/s, {4 * best['tokens'] / best['seconds']:.0f} patches/s", flush=True)


if __name__ == "__main__":
    main()
