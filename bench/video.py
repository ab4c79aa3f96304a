#!/usr/bin/env python3
"""Time from a video's bytes to its sampled frames, beside ffmpeg selecting the same frames; both use all cores.

    bench/video.py --make FILE      the 10 minutes of 1080p H.264 at 25 fps that docs/PERFORMANCE.md speaks of (takes minutes)
    bench/video.py FILE             FastDeploy's default sampling, which takes 180 frames of it
    bench/video.py --short FILE     the time of one short video (a file of tests/media), start of the program included
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
FFMPEG = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-y"]


def make(path):
    minute = path + ".minute.mp4"
    subprocess.run([*FFMPEG, "-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=25:duration=60,noise=alls=3:allf=t", "-c:v", "libx264",
                    "-pix_fmt", "yuv420p", minute], check=True)
    subprocess.run([*FFMPEG, "-stream_loop", "9", "-i", minute, "-c", "copy", path], check=True)
    os.remove(minute)


def ours(program, path, repeats):
    return json.loads(subprocess.check_output([program, path, str(repeats)]))


def ffmpegs(path, indices, total):
    # A list of 180 numbers is more than ffmpeg's expressions take; evenly spaced ones have a formula.
    count = len(indices)
    assert indices == [n for n in range(total) if math.ceil(n * count / total) * total < (n + 1) * count], "not the formula's frames"
    begin = time.monotonic()
    selection = f"select=lt(ceil(n*{count}/{total})*{total}\\,(n+1)*{count})"
    done = subprocess.run([*FFMPEG, "-i", path, "-vf", selection, "-vsync", "0", "-f", "rawvideo", "-pix_fmt", "rgb24", "-progress",
                           "pipe:1", os.devnull], check=True, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    frames = [line for line in done.stdout.splitlines() if line.startswith("frame=")][-1]
    assert int(frames[6:]) == len(indices), f"ffmpeg selected {frames}"
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--frames", type=int, default=15000, help="how many FILE has")
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "release", "bench_video"))
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.file)
    elif arguments.short:
        result = ours(arguments.program, arguments.file, 40)
        print(f"{os.path.basename(arguments.file)}: {len(result['indices'])} frames, median {result['median_s'] * 1000:.1f} ms, best "
              f"{result['best_s'] * 1000:.1f} ms of 40")
    else:
        result = ours(arguments.program, arguments.file, 1)
        peer = ffmpegs(arguments.file, result["indices"], arguments.frames)
        print(f"{len(result['indices'])} of {arguments.frames} frames: {result['best_s']:.2f} s, ffmpeg {peer:.2f} s, ratio "
              f"{result['best_s'] / peer:.2f}")


if __name__ == "__main__":
    sys.exit(main())
