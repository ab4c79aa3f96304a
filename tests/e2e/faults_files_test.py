"""Disks that are full, logs whose reader stops, model files that change: serving goes on where it can, and what cannot go on says why."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest

from conftest import BINARY, CLIENT_TIMEOUT_S, MODEL, ROOT, SANITIZED, Server, ask, free_port, thinking

FLAGS = ("--max-model-len", "2048", "--max-num-seqs", "4")


def answers(server):
    reply = server.http.post("/v1/chat/completions", json={"messages": ask("Compute 45 + 11."), "temperature": 0, **thinking(False)})
    return reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"] == "56"


def lines_with(text, word):
    return [line for line in text.splitlines() if word in line]


def whole_lines(path):
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def wait_until(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- logs ------------------------------------------------------------------------------------------------------------------------

def test_a_full_disk_for_the_log(start_server, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTDEPLOY_FAULT", "log_disk_full@at=20,times=30")
    server = start_server(*FLAGS, "--log-dir", str(tmp_path), "--log-level", "info")
    for i in range(100):
        assert server.http.get("/version", headers={"X-Request-Id": f"full-{i}"}).status_code == 200
    assert answers(server)
    wait_until(lambda: "is written again" in server.log_text())
    assert len(lines_with(server.log_text(), "cannot be written: No space left")) == 1
    (again,) = lines_with(server.log_text(), "is written again")
    assert "30 lines were lost" in again
    assert server.metrics()["fastdeploy:lost_log_lines_total"] == 30
    seen = [e["request_id"] for e in whole_lines(tmp_path / "fastdeploy.log") if e.get("request_id", "").startswith("full-")]
    assert seen[-1] == "full-99" and len(seen) >= 70 and seen == sorted(seen, key=lambda r: int(r[5:]))


def test_a_log_folder_that_is_taken_away(start_server, tmp_path):
    logs = tmp_path / "logs"
    server = start_server(*FLAGS, "--log-dir", str(logs), "--log-max-bytes", "4096")
    for _ in range(20):
        server.http.get("/version")
    shutil.rmtree(logs)
    for _ in range(60):
        assert server.http.get("/version").status_code == 200
    assert len(lines_with(server.log_text(), "cannot be written")) == 1
    assert answers(server) and server.metrics()["fastdeploy:lost_log_lines_total"] > 0
    logs.mkdir()
    wait_until(lambda: server.http.get("/version").status_code == 200 and (logs / "fastdeploy.log").exists())
    assert len(lines_with(server.log_text(), "is written again")) == 1


def test_a_folder_that_cannot_be_written_is_told_at_start(tmp_path):
    (tmp_path / "file").write_text("")
    for flags, word in ((("--log-dir", str(tmp_path / "file" / "logs")), "--log-dir"), (("--step-log", str(tmp_path / "no" / "steps")), "--step-log")):
        run = subprocess.run([BINARY, "serve", MODEL, "--port", "0", *flags], capture_output=True, text=True, timeout=60)
        assert run.returncode == 2 and word in run.stderr and str(tmp_path) in run.stderr


def test_a_full_disk_for_the_step_log(start_server, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTDEPLOY_FAULT", "step_log_disk_full@at=3")
    log = tmp_path / "steps.jsonl"
    server = start_server(*FLAGS, "--step-log", str(log))
    for _ in range(6):  # the loop rests between them, and flushes
        assert answers(server)
        time.sleep(0.3)
    (line,) = lines_with(server.log_text(), "--step-log")
    assert json.loads(line)["level"] == "warning" and "No space left" in line
    assert server.metrics()["fastdeploy:lost_log_lines_total"] > 0
    assert whole_lines(log)


def replayed(path):
    """The step after which the record ends early, once that many are the same again."""
    run = subprocess.run([BINARY, "replay", str(path)], capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert run.returncode == 0 and " 0 differences" in run.stdout and "bit for bit" in run.stdout, run.stdout + run.stderr
    (line,) = lines_with(run.stdout, "the record ends early, after step ")
    return int(line.split("after step ")[1].split(":")[0])


def test_a_full_disk_for_the_record(start_server, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTDEPLOY_FAULT", "record_disk_full@at=20")
    record = tmp_path / "steps.fdrec"
    server = start_server(*FLAGS, "--record", str(record))
    for _ in range(6):
        assert answers(server)
    metrics = server.metrics()
    assert metrics["fastdeploy:recording"] == 0
    (line,) = lines_with(server.log_text(), "no more steps are recorded")
    assert json.loads(line)["level"] == "warning" and "No space left" in line
    assert f"the file ends after step {replayed(record)} ({record.stat().st_size} bytes)" in line
    assert metrics["fastdeploy:recorded_bytes_total"] == record.stat().st_size


def test_a_small_disk_for_the_record(tmp_path):
    """A file system of its own, which the server alone sees."""
    disk, copy = tmp_path / "disk", tmp_path / "copy.fdrec"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=24k none {disk}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, timeout=60).returncode != 0:
        pytest.skip("no file system can be mounted here")
    starter = tmp_path / "fastdeploy"
    starter.write_text(f"#!/bin/sh\nexec unshare -rm sh -c '{mount}; exec {BINARY} \"$@\"' serve \"$@\"\n")
    starter.chmod(0o755)
    server = Server(*FLAGS, "--record", str(disk / "steps.fdrec"), binary=str(starter))
    try:
        for _ in range(20):
            reply = server.http.post("/v1/completions", json={"prompt": "Once", "max_tokens": 100, "ignore_eos": True})
            assert reply.status_code == 200
            if server.metrics()["fastdeploy:recording"] == 0:
                break
        assert answers(server)
        (line,) = lines_with(server.log_text(), "no more steps are recorded")
        assert "No space left" in line
        shutil.copy(f"/proc/{server.process.pid}/root{disk}/steps.fdrec", copy)
    finally:
        assert server.stop() == 0, server.log_text()
    assert 12000 < copy.stat().st_size <= 24576
    assert f"the file ends after step {replayed(copy)} ({copy.stat().st_size} bytes)" in line


def test_a_record_goes_to_new_files_only():
    run = subprocess.run([BINARY, "serve", MODEL, "--port", "0", "--record", "/dev/full"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "--record /dev/full" in run.stderr and "give a new file" in run.stderr


def test_sighup_opens_the_log_again_and_disturbs_nobody(start_server, tmp_path):
    server = start_server(*FLAGS, "--log-dir", str(tmp_path))
    log, old = tmp_path / "fastdeploy.log", tmp_path / "fastdeploy.log.old"
    with server.http.stream("POST", "/v1/completions", json={"prompt": "Once", "max_tokens": 1500, "ignore_eos": True, "stream": True}) as stream:
        lines = stream.iter_lines()
        next(lines)
        for n in range(3):
            httpx.get(server.url + "/version", headers={"X-Request-Id": f"before-{n}"})
            wait_until(lambda n=n: f"before-{n}" in log.read_text())
            log.rename(old)
            server.process.send_signal(signal.SIGHUP)
            wait_until(log.exists)
            httpx.get(server.url + "/version", headers={"X-Request-Id": f"after-{n}"})
            wait_until(lambda n=n: f"after-{n}" in log.read_text())
            assert f"before-{n}" in old.read_text() and f"before-{n}" not in log.read_text()
        *_, last = (line for line in lines if line)
    assert last == "data: [DONE]"
    assert whole_lines(old) and whole_lines(log)


def script(tmp_path, redirect):
    path = tmp_path / "fastdeploy"
    path.write_text(f"#!/bin/sh\nexec {BINARY} \"$@\" {redirect}\n")
    path.chmod(0o755)
    return str(path)


def test_without_standard_streams(start_server, tmp_path):
    server = start_server(*FLAGS, "--log-dir", str(tmp_path / "logs"), binary=script(tmp_path, "<&- >&- 2>&-"))
    for fd in (0, 1, 2):
        assert os.readlink(f"/proc/{server.process.pid}/fd/{fd}") == "/dev/null"
    assert answers(server)
    assert (tmp_path / "logs" / "fastdeploy.log").read_text()


@pytest.mark.parametrize("where", ["pipe", "socket"])
def test_a_reader_of_the_log_that_stops_blocks_nobody(tmp_path, where):
    ours, theirs = os.pipe() if where == "pipe" else [s.detach() for s in socket.socketpair()]
    port = free_port()
    process = subprocess.Popen([BINARY, "serve", MODEL, "--port", str(port), *FLAGS], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=theirs, cwd=ROOT)
    os.close(theirs)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=CLIENT_TIMEOUT_S) as client:
            def healthy():
                try:
                    return client.get("/health").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(healthy)
            # Each writes a line of 400 bytes, 2 MB in all, and nobody reads.
            one = f"GET /{'a' * 190} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: {'b' * 60}\r\n\r\n".encode()
            with socket.create_connection(("127.0.0.1", port), timeout=CLIENT_TIMEOUT_S) as s:
                for _ in range(50):
                    s.sendall(one * 100)
                    got = b""
                    while got.count(b"HTTP/1.1 404") < 100:
                        part = s.recv(1 << 20)
                        assert part
                        got += part
            reply = client.post("/v1/completions", json={"prompt": "a", "max_tokens": 200, "ignore_eos": True})
            assert reply.status_code == 200 and reply.json()["usage"]["completion_tokens"] == 200
            text = bytearray()
            reading = threading.Thread(target=lambda: [text.extend(part) for part in iter(lambda: os.read(ours, 65536), b"")], daemon=True)
            reading.start()
            metrics = client.get("/metrics").text
            lost = next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("fastdeploy:lost_log_lines_total "))
            assert lost > 10, lost

            def told():
                client.get("/version")
                return b"lines of the log were lost" in bytes(text)

            wait_until(told)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        reading.join(timeout=30)
        lines = bytes(text).decode().splitlines()
        assert all(json.loads(line)["message"] for line in lines) and '"stopped"' in lines[-1]
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_reader_of_the_log_that_is_gone_ends_nobody(tmp_path):
    ours, theirs = os.pipe()
    port = free_port()
    process = subprocess.Popen([BINARY, "serve", MODEL, "--port", str(port), *FLAGS], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=ROOT)
    os.close(theirs)
    os.close(ours)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=CLIENT_TIMEOUT_S) as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    assert client.get("/health").status_code == 200
                    break
                except httpx.TransportError:
                    assert process.poll() is None and time.monotonic() < deadline
                    time.sleep(0.05)
            assert client.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


# --- the model's files -----------------------------------------------------------------------------------------------------------

def copy_of_model(tmp_path):
    target = tmp_path / "model"
    shutil.copytree(MODEL, target)
    return target


def start_loading(model, *flags, faults="slow_load@ms=30"):
    """A server that is in the middle of its weights, and what it says."""
    process = subprocess.Popen([BINARY, "serve", "--model", str(model), "--port", "0", *FLAGS, *flags], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                               env={**os.environ, "FASTDEPLOY_FAULT": faults})
    time.sleep(0.7)  # the headers have been read and the first tensors, 30 ms for each
    assert process.poll() is None, process.stderr.read()
    return process


def ended(process):
    error = process.communicate(timeout=120)[1]
    return process.returncode, error


@pytest.mark.skipif(SANITIZED, reason="the sanitizer has a handler of its own")
def test_a_shard_that_is_truncated_while_it_is_read(tmp_path):
    model = copy_of_model(tmp_path)
    process = start_loading(model)
    os.truncate(model / "model-00003-of-00003.safetensors", 4096)
    code, error = ended(process)
    assert code == 1, (code, error)
    (line,) = lines_with(error, "model-00003-of-00003.safetensors")
    assert "at byte" in line and "truncated" in line
    assert int(line.split("at byte ")[1].split()[0]) >= 4096


def test_a_shard_that_is_written_to_while_it_is_read(tmp_path):
    model = copy_of_model(tmp_path)
    shard = model / "model-00002-of-00003.safetensors"
    process = start_loading(model)
    with open(shard, "r+b") as f:
        f.seek(-100, os.SEEK_END)
        f.write(b"x" * 50)
    code, error = ended(process)
    assert code == 2, (code, error)
    (line,) = lines_with(error, "was written to while it was read")
    assert shard.name in line


def test_a_shard_that_is_replaced_while_it_is_read_stays_as_it_was(tmp_path, start_server, monkeypatch):
    """What package managers and downloads do: another file of the same name. The old one is still mapped."""
    model = copy_of_model(tmp_path)
    monkeypatch.setenv("FASTDEPLOY_FAULT", "slow_load@ms=20")
    shard = model / "model-00002-of-00003.safetensors"

    def replace():
        time.sleep(0.7)
        other = tmp_path / "other"
        other.write_bytes(b"x" * 1000)
        other.replace(shard)

    replacing = threading.Thread(target=replace)
    replacing.start()
    server = start_server(*FLAGS, model=model)
    replacing.join()
    assert shard.stat().st_size == 1000 and answers(server)


@pytest.mark.parametrize("change, words", [
    (lambda index: "{", ["model.safetensors.index.json"]),
    (lambda index: json.dumps({"weight_map": {}}), ["model.safetensors.index.json"]),
    (lambda index: json.dumps({**index, "weight_map": {**index["weight_map"], "model.nothing": "model-00001-of-00003.safetensors"}}), ["model.nothing"]),
    (lambda index: json.dumps({**index, "weight_map": {name: "model-00001-of-00003.safetensors" for name in index["weight_map"]}}), ["model-00001-of-00003.safetensors"]),
    (lambda index: json.dumps({**index, "weight_map": {**index["weight_map"], "x": "../../etc/passwd"}}), ["../../etc/passwd"]),
])
def test_an_index_that_is_wrong(tmp_path, change, words):
    model = copy_of_model(tmp_path)
    path = model / "model.safetensors.index.json"
    path.write_text(change(json.loads(path.read_text())))
    run = subprocess.run([BINARY, "serve", "--model", str(model), "--port", "0"], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert run.returncode == 2, run.stderr
    (error,) = lines_with(run.stderr, "fastdeploy serve:")
    assert all(word in error for word in words), error


def test_loading_that_does_not_move(tmp_path):
    process = start_loading(copy_of_model(tmp_path), "--load-timeout", "1.5", faults="slow_load@at=20,times=1,ms=3600000")
    begin = time.monotonic()
    code, error = ended(process)
    assert code == 1 and time.monotonic() - begin < 60
    assert "has not moved" in error and "--load-timeout" in error


@pytest.mark.skipif(SANITIZED, reason="the sanitizer has a handler of its own")
def test_a_mapped_checkpoint_that_is_truncated_while_it_serves(tmp_path):
    packed = tmp_path / "packed"
    subprocess.run([BINARY, "quantize", MODEL, str(packed), "--quantization", "none"], check=True, capture_output=True, timeout=120, cwd=ROOT)
    server = Server(*FLAGS, model=packed)
    try:
        assert answers(server)
        for shard in packed.glob("*.safetensors"):
            os.truncate(shard, 4096)
        with pytest.raises(httpx.TransportError):
            for _ in range(20):
                answers(server)
        assert server.process.wait(timeout=30) == 1
        (line,) = lines_with(server.log_text(), "at byte")
        assert ".safetensors" in line and "truncated" in line
    finally:
        server.http.close()
        server.client.close()
        server.process.kill()
        server.process.wait()
