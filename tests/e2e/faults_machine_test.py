"""What the machine does to a server: clocks that jump, a process that is stopped, memory that runs short, signals."""

import concurrent.futures
import mmap
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time

import httpx
import pytest

from conftest import BASE_FLAGS, CLIENT_TIMEOUT_S, SANITIZED, Server, thinking
from video_files import MEDIA, video_part

FLAGS = ("--max-model-len", "4096", "--max-num-seqs", "4")

# Adds the seconds that a file says to the wall clock, and leaves the monotonic ones alone, as a jump of the machine's clock does.
CLOCK_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long long* jump;
__attribute__((constructor)) static void open_jump(void) {
  int fd = open(getenv("CLOCK_JUMP_FILE"), O_RDONLY);
  jump = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
}
int clock_gettime(clockid_t id, struct timespec* t) {
  static int (*real)(clockid_t, struct timespec*);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int r = real(id, t);
  if (r == 0 && jump && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += *jump;
  return r;
}
int gettimeofday(struct timeval* t, void* z) {
  struct timespec s;
  clock_gettime(CLOCK_REALTIME, &s);
  t->tv_sec = s.tv_sec;
  t->tv_usec = s.tv_nsec / 1000;
  return 0;
}
time_t time(time_t* out) {
  struct timespec s;
  clock_gettime(CLOCK_REALTIME, &s);
  if (out) *out = s.tv_sec;
  return s.tv_sec;
}
"""


@pytest.fixture
def jumping_clock(tmp_path, monkeypatch):
    """set(seconds): how far the wall clock of every server started in this test is off."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or SANITIZED:
        pytest.skip("needs a C compiler and no sanitizer")
    (tmp_path / "shim.c").write_text(CLOCK_SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(tmp_path / "shim.so"), str(tmp_path / "shim.c"), "-ldl"], check=True)
    (tmp_path / "jump").write_bytes(bytes(8))
    file = open(tmp_path / "jump", "r+b")
    memory = mmap.mmap(file.fileno(), 8)
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "shim.so"))
    monkeypatch.setenv("CLOCK_JUMP_FILE", str(tmp_path / "jump"))
    yield lambda seconds: memory.__setitem__(slice(0, 8), struct.pack("q", seconds))
    memory.close()
    file.close()


def complete(server, **fields):
    with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client:
        return client.post("/v1/completions", json={"prompt": [5, 6, 7], "temperature": 0, "ignore_eos": True, "max_tokens": 8, **fields})


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_clock_jumps_move_created_and_nothing_else(start_server, jumping_clock, monkeypatch, seconds):
    monkeypatch.setenv("FASTDEPLOY_FAULT", "slow_step@ms=5")
    server = start_server(*FLAGS, "--max-num-seqs", "2", "--max-waiting-time", "60", "--keep-alive-timeout", "120", "--step-timeout", "30")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        # Two run, one waits with a deadline and one without; a connection is idle.
        runs = [pool.submit(complete, server, max_tokens=400, timeout=100) for _ in range(2)]
        server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 2, 30)
        waits = [pool.submit(complete, server, timeout=100), pool.submit(complete, server)]
        idle = httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S)
        assert idle.get("/health").status_code == 200
        jumping_clock(seconds)
        for reply in [r.result() for r in runs + waits]:
            assert reply.status_code == 200, reply.text
        created = idle.post("/v1/completions", json={"prompt": [5], "max_tokens": 1}).json()["created"]
        assert abs(created - (time.time() + seconds)) < 60, "the shim does not work"
        assert idle.get("/health").status_code == 200 and idle.get("/livez").status_code == 200
        # A deadline is as long as it says.
        begin = time.monotonic()
        late = complete(server, max_tokens=3000, timeout=1)
        assert late.status_code == 408 and 0.9 < time.monotonic() - begin < 30
        jumping_clock(0)
        assert complete(server).status_code == 200
        metrics = server.wait_idle(10)
        idle.close()
    # No time that was measured has the jump in it.
    for name in ("e2e_request_latency_seconds_sum", "request_queue_time_seconds_sum", "time_to_first_token_seconds_sum"):
        assert 0 <= metrics["fastdeploy:" + name] < 600, name
    assert metrics["fastdeploy:slow_steps_total"] == 0


def test_a_process_that_was_stopped_goes_on(start_server):
    """SIGSTOP and SIGCONT, as a debugger, a frozen cgroup or a sleeping machine: the time in between is nobody's slow step."""
    server = start_server(*FLAGS, "--step-timeout", "4")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        run = pool.submit(complete, server, max_tokens=3000)
        server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 1, 30)
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        server.process.send_signal(signal.SIGCONT)
        reply = run.result()
    assert reply.status_code == 200 and reply.json()["usage"]["completion_tokens"] == 3000
    assert server.http.get("/health").status_code == 200


def test_where_memory_is_short_a_video_goes_and_not_the_server(start_server):
    server = start_server(*BASE_FLAGS)
    reply = server.http.post("/v1/chat/completions", json={
        "messages": [{"role": "user", "content": [video_part((MEDIA / "h264.mp4").read_bytes()), {"type": "text", "text": "What?"}]}],
        "max_tokens": 2, **thinking(False)})
    assert reply.status_code == 200, reply.text
    children = {int(pid) for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir() for pid in (task / "children").read_text().split()}
    assert children
    own = int(pathlib.Path(f"/proc/{server.process.pid}/oom_score_adj").read_text())
    for pid in children:
        assert int(pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text()) == 900 > own


@pytest.mark.parametrize("first, second", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_the_second_signal_does_not_wait(monkeypatch, first, second):
    monkeypatch.setenv("FASTDEPLOY_FAULT", "slow_step@ms=20")
    server = Server(*FLAGS)
    with server.http.stream("POST", "/v1/completions", json={"prompt": [5, 6], "ignore_eos": True, "max_tokens": 3000, "stream": True}) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith('data: {"id"')
        server.process.send_signal(first)
        time.sleep(0.3)
        assert server.process.poll() is None
        begin = time.monotonic()
        server.process.send_signal(second)
        assert server.process.wait(timeout=10) == 128 + second
        assert time.monotonic() - begin < 5
        with pytest.raises(httpx.TransportError):
            list(lines)
    server.http.close()
    server.client.close()
    assert not os.path.exists(f"/proc/{server.process.pid}")


@pytest.mark.parametrize("stream", [True, False])
def test_a_drain_that_ends_at_its_deadline_says_so(start_server, monkeypatch, stream):
    """Readiness goes first, liveness stays, what runs at the deadline ends with an error event or 503, and the code is 0."""
    monkeypatch.setenv("FASTDEPLOY_FAULT", "slow_step@ms=20")
    server = start_server(*FLAGS, "--timeout-graceful-shutdown", "2")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        run = pool.submit(complete, server, max_tokens=3000, stream=stream)
        server.wait_for(lambda m: m["fastdeploy:num_requests_running"] == 1, 30)
        server.process.send_signal(signal.SIGTERM)
        seen = set()
        while server.process.poll() is None and len(seen) < 2:
            try:
                seen.add((httpx.get(server.url + "/health", timeout=5).status_code, httpx.get(server.url + "/livez", timeout=5).status_code))
            except httpx.TransportError:
                break
        assert (503, 200) in seen and seen <= {(503, 200), (200, 200)}, seen
        reply = run.result()
    if stream:
        assert '"error"' in reply.text.strip().splitlines()[-3] and reply.text.strip().endswith("data: [DONE]"), reply.text[-500:]
    else:
        assert reply.status_code == 503
    assert server.process.wait(timeout=30) == 0
