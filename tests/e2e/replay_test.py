"""serve --record and fastdeploy replay: what a server drew is drawn again, bit for bit, and what is not is named."""

import concurrent.futures
import os
import signal
import stat
import struct
import subprocess
import zlib

import pytest
from conftest import BASE_FLAGS, BINARY, EVAL, MODEL, ROOT, Server, ask

KIND_PLAN, KIND_RESULT, KIND_END = 3, 4, 5
FLAGS = (*BASE_FLAGS, "--num-kv-pages", "120", "--max-num-batched-tokens", "96")


def records(data):
    """[(kind, payload)] of a file."""
    assert data[:8] == b"FDRECORD"
    at, found = 12, []
    while at < len(data):
        length, kind = struct.unpack_from("<IB", data, at)
        payload = data[at + 5:at + 5 + length]
        (crc,) = struct.unpack_from("<I", data, at + 5 + length)
        assert crc == zlib.crc32(bytes([kind]) + payload)
        found.append((kind, payload))
        at += 9 + length
    return found


def write(path, begin, found):
    with open(path, "wb") as f:
        f.write(begin)
        for kind, payload in found:
            f.write(struct.pack("<IB", len(payload), kind) + payload + struct.pack("<I", zlib.crc32(bytes([kind]) + payload)))


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7f) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def signed(data, at):
    value, at = varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def replay(*args, **keywords):
    return subprocess.run([BINARY, "replay", *map(str, args)], capture_output=True, text=True, cwd=ROOT, timeout=600, **keywords)


def talk(server):
    """Pictures, penalties, biases, log-probabilities of both kinds, seeds, streams that are left, at once."""
    pictures = [EVAL / "media" / f"describe-00{i}-0.{kind}" for i, kind in ((0, "png"), (1, "jpg"))]
    chat = server.client.chat.completions

    def run(i):
        if i % 6 == 0:
            return chat.create(model="default", messages=ask("What is in the picture?", pictures[i % 4 // 2]), max_tokens=12, temperature=0)
        if i % 6 == 1:
            return chat.create(model="default", messages=ask(f"Count from {i}."), max_tokens=40, seed=i, temperature=1.2, logprobs=True,
                               top_logprobs=4)
        if i % 6 == 2:
            return chat.create(model="default", messages=ask(f"Say {i} words."), max_tokens=30, seed=i, frequency_penalty=0.5,
                               presence_penalty=0.3, logit_bias={"100": 5}, extra_body={"repetition_penalty": 1.2, "bad_words": ["the"]})
        if i % 6 == 3:
            return server.client.completions.create(model="default", prompt="one two three " * 60, max_tokens=5, logprobs=2,
                                                    extra_body={"prompt_logprobs": 2})
        if i % 6 == 4:
            for n, _ in enumerate(chat.create(model="default", messages=ask("Tell me a long story."), max_tokens=500, stream=True)):
                if n > 5:
                    return None
        return chat.create(model="default", messages=ask("What is 12 + 30?"), max_tokens=20, temperature=0)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(24)))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / "steps.fdrec"
    server = Server(*FLAGS, "--record", str(path))
    try:
        talk(server)
        metrics = server.metrics()
        assert metrics["fastdeploy:recording"] == 1
        assert 0 < metrics["fastdeploy:recorded_bytes_total"] <= path.stat().st_size
    finally:
        code = server.stop()
    assert code == 0, server.log_text()
    return path


def test_a_replay_draws_the_same(recorded):
    assert stat.S_IMODE(recorded.stat().st_mode) == 0o600
    found = records(recorded.read_bytes())
    assert found[-1][0] == KIND_END
    results = sum(kind == KIND_RESULT for kind, _ in found)
    assert results == sum(kind == KIND_PLAN for kind, _ in found) > 20
    done = replay(recorded)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{results} steps, ") and "0 differences" in done.stdout, done.stdout


def test_the_model_may_lie_elsewhere(recorded, tmp_path):
    (tmp_path / "moved").symlink_to(MODEL)
    done = replay(recorded, "--model", tmp_path / "moved", "--threads", "1")
    assert done.returncode == 0 and " 0 differences" in done.stdout, done.stdout + done.stderr
    done = replay(recorded, "--model", tmp_path / "nothing")
    assert done.returncode == 2 and "nothing" in done.stderr, done.stderr
    done = replay(recorded, "--model", ROOT / "tests/golden/models/ernie4_5_vl_moe")
    assert done.returncode == 2 and "model is " in done.stderr and "when recorded" in done.stderr, done.stderr
    done = replay(recorded, "--kv-cache-dtype", "int8")
    assert done.returncode == 2 and "kv_cache is " in done.stderr, done.stderr


def test_one_other_token_is_named(recorded, tmp_path):
    data = recorded.read_bytes()
    found = records(data)
    step = request = None
    for i, (kind, payload) in enumerate(found):
        if kind != KIND_RESULT or i < len(found) // 2:
            continue
        step, at = signed(payload, 0)
        count, at = varint(payload, at)
        if count == 0:
            continue
        request, at = varint(payload, at)
        token, _ = signed(payload, at)
        assert token >= 0
        changed = bytearray(payload)
        changed[at] ^= 2  # the token's lowest bit but for the sign
        found[i] = (kind, bytes(changed))
        break
    path = tmp_path / "changed.fdrec"
    write(path, data[:12], found)
    done = replay(path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 differences" in done.stdout
    assert f"first difference: step {step}, request {request}, position " in done.stdout, done.stdout
    assert f"recorded token {token ^ 1} " in done.stdout and f"here token {token} " in done.stdout, done.stdout


def test_cut_damaged_and_other_files(recorded, tmp_path):
    data = recorded.read_bytes()
    path = tmp_path / "part.fdrec"
    path.write_bytes(data[:len(data) // 2])
    done = replay(path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the record ends early" in done.stdout and " 0 differences" in done.stdout
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    path.write_bytes(damaged)
    done = replay(path)
    assert done.returncode == 1 and "damaged" in done.stderr and " 0 differences" in done.stdout
    for content in (b"", b"no record", os.urandom(5000)):
        path.write_bytes(content)
        done = replay(path)
        assert done.returncode == 2 and str(path) in done.stderr, done.stderr
    assert replay(tmp_path / "none").returncode == 2
    assert replay().returncode == 2
    done = replay(recorded, "--dtype", "float32")
    assert done.returncode == 2 and "dtype is float32 here and was bfloat16 when recorded" in done.stderr, done.stderr


def test_a_record_is_never_written_over(recorded):
    before = recorded.read_bytes()
    done = subprocess.run([BINARY, "serve", "--model", MODEL, "--port", "0", "--record", str(recorded)], capture_output=True, text=True,
                          cwd=ROOT, timeout=60)
    assert done.returncode == 2 and "--record" in done.stdout + done.stderr and str(recorded) in done.stdout + done.stderr
    assert recorded.read_bytes() == before


def test_a_full_disk_ends_the_record_and_nothing_else(tmp_path):
    path = tmp_path / "full.fdrec"
    script = tmp_path / "limited.sh"
    script.write_text(f'#!/bin/bash\ntrap "" XFSZ\nulimit -f 40\nexec "{BINARY}" "$@"\n')
    script.chmod(0o700)
    server = Server(*FLAGS, "--record", str(path), binary=str(script))
    try:
        server.client.completions.create(model="default", prompt="Once", max_tokens=5)  # a picture alone is larger than the disk
        talk(server)
        server.wait_for(lambda m: m["fastdeploy:recording"] == 0, 10)
        talk(server)
    finally:
        code = server.stop()
    log = server.log_text()
    assert code == 0, log
    assert log.count("no more steps are recorded") == 1, log
    done = replay(path)
    assert done.returncode == 0 and "the record ends early, after step " in done.stdout, done.stdout + done.stderr
    assert records(path.read_bytes())[-1][0] == KIND_RESULT


def test_killed_in_the_middle(tmp_path):
    path = tmp_path / "killed.fdrec"
    server = Server(*FLAGS, "--record", str(path))
    for n, _ in enumerate(server.client.chat.completions.create(model="default", messages=ask("Tell me a long story."), max_tokens=400,
                                                                temperature=0, stream=True)):
        if n == 20:
            break
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    server.http.close()
    server.client.close()
    done = replay(path)
    assert done.returncode == 0 and "the record ends early" in done.stdout, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= 20, done.stdout
