"""What encoding pictures costs, and whom: the encoder cache across requests, its budget in a step, and the step log that shows both."""

import concurrent.futures
import json
import subprocess

import pytest

from conftest import BASE_FLAGS, BINARY, EVAL, MODEL, ask, image_part, thinking
from png_file import noise_png

TEN = sorted((EVAL / "media").glob("multi_image-*"))[:10]
NAMES = ("items_total", "tokens_total", "seconds_total", "cache_hits_total", "cache_misses_total", "cache_hit_tokens_total",
         "cache_miss_tokens_total", "cache_tokens", "cache_capacity_tokens")


def encoder_metrics(server):
    metrics = server.metrics()
    return {name: metrics["fastdeploy:encoder_" + name] for name in NAMES}


def chat(server, messages, max_tokens=24, **fields):
    reply = server.http.post("/v1/chat/completions", json={"messages": messages, "temperature": 0, "max_tokens": max_tokens,
                                                           **thinking(False), **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def text_of(reply):
    return reply["choices"][0]["message"]["content"]


def steps(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def start_logged(start_server, tmp_path, *flags):
    """(a server of its own, the path of its step log); an idle engine has written every step."""
    path = tmp_path / "steps.jsonl"
    # A prompt whose prefix is kept needs no encoder at all.
    return start_server(*BASE_FLAGS, "--no-enable-prefix-caching", "--step-log", str(path), *flags), path


def test_ten_pictures_again_spend_no_encoder_time(server):
    before = encoder_metrics(server)
    # Under different salts: else the second would find its keys and values and need no picture.
    first = chat(server, ask("Describe the pictures.", *TEN), cache_salt="ten pictures")
    middle = encoder_metrics(server)
    second = chat(server, ask("Describe the pictures.", *TEN), cache_salt="ten pictures again")
    after = encoder_metrics(server)
    assert text_of(first)
    assert text_of(second) == text_of(first)
    assert second["usage"] == first["usage"]
    assert middle["cache_hits_total"] + middle["items_total"] == before["cache_hits_total"] + before["items_total"] + 10
    for name in ("items_total", "tokens_total", "seconds_total", "cache_misses_total", "cache_miss_tokens_total"):
        assert after[name] == middle[name], name
    assert after["cache_hits_total"] == middle["cache_hits_total"] + 10
    assert after["cache_hit_tokens_total"] > middle["cache_hit_tokens_total"]
    assert after["seconds_total"] > 0
    assert 0 < after["cache_tokens"] <= after["cache_capacity_tokens"]


@pytest.mark.parametrize("flag", ["--encoder-cache-tokens", "--max-encoder-cache"])
def test_a_cache_of_nothing_encodes_again(start_server, flag):
    server = start_server(*BASE_FLAGS, "--no-enable-prefix-caching", flag, "0")
    replies, seen = [], []
    for _ in range(2):
        replies.append(chat(server, ask("Describe the pictures.", *TEN[:3])))
        seen.append(encoder_metrics(server))
    assert text_of(replies[0]) == text_of(replies[1])
    assert [m["items_total"] for m in seen] == [3, 6]
    assert [m["cache_hits_total"] for m in seen] == [0, 0]
    assert seen[1]["cache_tokens"] == 0
    assert seen[1]["seconds_total"] > seen[0]["seconds_total"]


def test_a_hundred_pictures_keep_the_chunk_budget(start_server, tmp_path):
    server, log = start_logged(start_server, tmp_path, "--max-model-len", "8192")
    pictures = [noise_png(seed, 56 + 28 * (seed % 5)) for seed in range(100)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        large = pool.submit(chat, server, ask("What is in the pictures?", *pictures), 8)
        small = pool.submit(chat, server, ask("Compute 45 + 11."), 64)
        reply = large.result()
        assert text_of(small.result())
    assert reply["usage"]["prompt_tokens"] > 100 * 4
    server.wait_idle(10)
    seen = steps(log)
    assert all(a["step"] < b["step"] for a, b in zip(seen, seen[1:]))
    assert max(s["tokens"] for s in seen) <= 384
    assert sum(s["tokens"] for s in seen if s["prefills"]) >= reply["usage"]["prompt_tokens"]
    assert sum(s["encoded_items"] for s in seen) == 100
    assert sum(s["encoded_tokens"] for s in seen) == server.metrics()["fastdeploy:encoder_tokens_total"]
    assert all(s["ok"] and s["wall_ms"] > 0 and s["encode_ms"] <= s["wall_ms"] + 1 for s in seen)
    assert max(s["encoded_items"] for s in seen) > 1, "small pictures are encoded together"


def test_others_decode_while_a_hundred_pictures_are_encoded(start_server, tmp_path):
    server, log = start_logged(start_server, tmp_path, "--max-encoder-batch-tokens", "20")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        stream = server.http.stream("POST", "/v1/chat/completions", json={
            "messages": ask("Tell a story."), "temperature": 0, "max_tokens": 3000, "ignore_eos": True, "stream": True, **thinking(False)})
        with stream as response:
            lines = response.iter_lines()
            next(lines)
            reply = pool.submit(chat, server, ask("What is in the pictures?", *(noise_png(1000 + n, 84) for n in range(100))), 4)
            for line in lines:  # the story goes on until the other has its answer
                if reply.done():
                    break
                assert line != "data: [DONE]", "the story ended first"
            reply.result()
    server.wait_idle(10)
    encoding = [s for s in steps(log) if s["encoded_items"]]
    assert len(encoding) >= 50  # two pictures of nine tokens at once
    assert all(s["encoded_tokens"] <= 20 and s["decodes"] == 1 for s in encoding)


def test_a_step_log_that_cannot_be_written(tmp_path):
    result = subprocess.run([BINARY, "serve", MODEL, "--port", "0", "--step-log", str(tmp_path / "none" / "steps")],
                            capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert "--step-log" in result.stderr and "No such file or directory" in result.stderr
