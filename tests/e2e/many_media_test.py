"""A hundred videos in one request and a hundred pictures in another, in chunks of 384 tokens. `pytest -s` prints times and memory."""

import json
import pathlib
import re
import struct
import time

import pytest

from conftest import SANITIZED, ask, image_part, thinking
from encoder_test import png, steps
from video_files import MEDIA, READ, gif_video, sampled, tokens_of, video_part, video_tokens

COUNT = 100
BUDGET = 384
FLAGS = ("--limit-mm-per-prompt", '{"image": 100, "video": 100}', "--max-num-batched-tokens", str(BUDGET), "--max-model-len", "8192")
FRAMES = 16
PEAK_MIB = 256


def peak_mib(server):
    return int(re.search(r"^VmHWM:\s+(\d+) kB", pathlib.Path(f"/proc/{server.process.pid}/status").read_text(), re.M).group(1)) / 1024


OPTIONS = {"fps": -1, "target_frames": 4}


def videos():
    """GIFs of 320 x 240, each with colours of its own."""
    parts = [video_part(gif_video(320, 240, FRAMES, (bytes((2 * n, 40, 90)), bytes((255 - n, 20 + n, 200)))), **OPTIONS) for n in range(COUNT)]
    return parts, COUNT * video_tokens(sampled(FRAMES, FRAMES * 0.04, **OPTIONS), 320, 240), 2 * COUNT


def h264_videos():
    """Files that differ and frames that do not: all are decoded, the two pairs of frames are encoded once."""
    data = (MEDIA / "h264.mp4").read_bytes()
    parts = [video_part(data + struct.pack(">I4sI", 12, b"free", n), **OPTIONS) for n in range(COUNT)]
    return parts, COUNT * video_tokens(sampled(*READ["h264.mp4"], **OPTIONS)), 2


def pictures():
    sides = [112 + 28 * (n % 5) for n in range(COUNT)]
    return [image_part(png(n, side)) for n, side in enumerate(sides)], sum(tokens_of(side, side, 3136, 200704) for side in sides), COUNT


@pytest.mark.parametrize("make, kind", [(videos, "video"), (h264_videos, "video"), (pictures, "image")])
def test_a_hundred_in_one_request(start_server, tmp_path, make, kind):
    log = tmp_path / "steps.jsonl"
    server = start_server(*FLAGS, "--step-log", str(log))
    parts, tokens, encoded_items = make()
    start_mib = peak_mib(server)
    started = time.monotonic()
    content = [*parts, {"type": "text", "text": f"What is in {kind} 1?"}]
    response = server.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}], "temperature": 0,
                                                              "max_tokens": 16, **thinking(False)})
    seconds = time.monotonic() - started
    assert response.status_code == 200, response.text
    reply = response.json()
    assert reply["choices"][0]["message"]["content"]
    assert reply["usage"]["prompt_tokens_details"][kind + "_tokens"] == tokens
    server.wait_idle(10)
    seen = steps(log)
    assert max(s["tokens"] for s in seen) <= BUDGET
    assert sum(s["tokens"] for s in seen) >= reply["usage"]["prompt_tokens"]
    assert all(s["ok"] for s in seen)
    assert sum(s["encoded_items"] for s in seen) == encoded_items
    metrics = server.metrics()
    parsed = server.http.post("/v1/chat/completions", json={"messages": ask("Compute 45 + 11."), "temperature": 0, **thinking(False)})
    assert parsed.json()["choices"][0]["message"]["content"] == "56"
    print("\n" + json.dumps({"what": make.__name__, "items": COUNT, "prompt_tokens": reply["usage"]["prompt_tokens"], "seconds": round(seconds, 2),
                             "engine_seconds": round(sum(s["wall_ms"] for s in seen) / 1000, 2),
                             "encoder_seconds": round(metrics["fastdeploy:encoder_seconds_total"], 2), "steps": len(seen),
                             "largest_step": max(s["tokens"] for s in seen), "peak_mib_at_start": round(start_mib),
                             "peak_mib": round(peak_mib(server))}))
    assert SANITIZED or peak_mib(server) < PEAK_MIB
