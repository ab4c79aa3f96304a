#!/usr/bin/env python3
"""A JPEG to patch rows, on one core: bench_pictures and Pillow with numpy, in turns.

Usage: bench/pictures.py [--binary build/release/bench/bench_pictures] [--file PICTURE] [--rounds 5] [--cpu N]

Needs Pillow and numpy (any virtual environment). Without --file a picture of 1024 x 1024 is made: structure on four scales and grain,
JPEG of quality 90, 4:2:0. Pillow does what the original processor does: open, convert to RGB, resize (bicubic) to the size of
smart_resize, rows of uint8 [patches, 588] in 2x2-block order by numpy's reshape and transpose; a second line adds the normalisation to
float32, which here belongs to the model. Both give the same rows, which is checked first where Pillow takes the passes in the same order.
Prints medians of the rounds and, last, one JSON line.
"""

import argparse
import io
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image, features
from PIL import __version__ as pillow_version

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32) * 255
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32) * 255


def make_picture():
    rng, side = np.random.default_rng(7), 1024
    total = np.zeros((side, side, 3))
    for cells, amount in ((8, 70), (32, 50), (128, 35), (512, 12)):
        grid = rng.normal(0, 1, (cells, cells, 3))
        grid = ((grid - grid.min()) / (grid.max() - grid.min()) * 255).astype(np.uint8)
        total += amount * np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC), float)
    total = (total - total.min()) / (total.max() - total.min()) * 255 + rng.normal(0, 2, total.shape)
    out = io.BytesIO()
    Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def decode(data):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.load()
    return image


def cut(resized):
    pixels = np.asarray(resized).transpose(2, 0, 1)
    h, w = pixels.shape[1] // 14, pixels.shape[2] // 14
    blocks = pixels.reshape(3, h // 2, 2, 14, w // 2, 2, 14).transpose(1, 4, 2, 5, 0, 3, 6)
    return np.ascontiguousarray(blocks).reshape(h * w, 588)


def normalise(resized):
    return cut((np.asarray(resized).astype(np.float32) - MEAN) / STD)


def pillow(data, size, work, seconds=1.0):
    work(decode(data).resize(size, Image.Resampling.BICUBIC))
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        work(decode(data).resize(size, Image.Resampling.BICUBIC))
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="build/release/bench/bench_pictures")
    parser.add_argument("--file", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu", type=int, help="the core that both run on; the last allowed one unless given")
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.cpu if args.cpu is not None else max(os.sched_getaffinity(0))})
    data = args.file.read_bytes() if args.file else make_picture()
    with tempfile.NamedTemporaryFile(suffix=".picture") as file:
        file.write(data)
        file.flush()
        run = lambda seconds: json.loads(subprocess.run([args.binary, file.name, str(seconds)], check=True, capture_output=True, text=True).stdout)
        size = (lambda r: (r["resized_width"], r["resized_height"]))(run(0.01))
        rounds = []
        for _ in range(args.rounds):
            ours = run(0.5)
            ours["pillow_ms"] = pillow(data, size, cut)
            ours["pillow_normalised_ms"] = pillow(data, size, normalise)
            ours["pillow_decode_ms"] = pillow_decode(data)
            rounds.append(ours)
    result = {key: value if isinstance(value, str) else round(statistics.median(r[key] for r in rounds), 4) for key, value in rounds[0].items()}
    result |= dict(file_bytes=len(data), pillow=pillow_version, pillow_libjpeg_turbo=features.version("libjpeg_turbo"), numpy=np.__version__,
                   machine=platform.processor() or platform.machine(), times_faster=round(result["pillow_ms"] / result["rows_ms"], 2))
    line = lambda name, ms: print(f"{name:48} {ms:8.2f} ms {1e3 / ms:8.1f} pictures/s")
    print(f"{int(result['width'])} x {int(result['height'])} -> {size[0]} x {size[1]}, {len(data)} bytes, one core")
    line("decoding alone (the floor)", result["decode_ms"])
    line(f"resizing and cutting alone ({result['kernels']})", result["resize_and_cut_ms"])
    line("file to patch rows", result["rows_ms"])
    line("file to media item (with the content hash)", result["item_ms"])
    line("Pillow, decoding alone", result["pillow_decode_ms"])
    line("Pillow and numpy, file to patch rows", result["pillow_ms"])
    line("Pillow and numpy, file to float32 rows", result["pillow_normalised_ms"])
    print(f"{result['times_faster']} times Pillow's pictures per second; {result['decode_ms'] / result['rows_ms']:.0%} of the floor")
    print(json.dumps(result))


def pillow_decode(data):
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        decode(data)
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
