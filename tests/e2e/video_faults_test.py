"""Videos that go wrong: a decoder that is killed or stops, a server that dies, files that mean harm. Nobody else is touched."""

import concurrent.futures
import json
import os
import pathlib
import random
import re
import signal
import struct
import time

import httpx
import pytest

from conftest import BASE_FLAGS, CLIENT_TIMEOUT_S, SANITIZED, Server, thinking
from video_files import MEDIA, READ, data_url, gif_video, sampled, video_part, video_tokens

H264 = (MEDIA / "h264.mp4").read_bytes()
LARGE = (2000, 2000)  # a frame takes tens of milliseconds
FRAMES = 1500
MEMORY_GIB = 1
LIMIT_S = 60  # a refusal takes milliseconds; a sanitizer and a busy machine multiply that
RSS_GROWTH_MIB = 96


@pytest.fixture(scope="module")
def slow_video():
    """Takes minutes to decode."""
    return video_part(gif_video(*LARGE, FRAMES))


def question(*parts, text="What?", max_tokens=4, **fields):
    content = [*parts, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": max_tokens, **thinking(False), **fields}


def post(server, *parts, **fields):
    with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client:  # of its own, for any thread
        return client.post("/v1/chat/completions", json=question(*parts, **fields))


def check_video(server):
    response = post(server, video_part(H264))
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["prompt_tokens_details"]["video_tokens"] == video_tokens(sampled(*READ["h264.mp4"]))


def reason(response, *words):
    assert 400 <= response.status_code < 504, response.text
    message = response.json()["error"]["message"]
    for word in words:
        assert word in message, message
    for secret in ("0x", "/tmp", "/usr", "/lib", "[mov", "[gif"):
        assert secret not in message, message
    return message


def children(server):
    found = set()
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        try:
            found |= {int(pid) for pid in (task / "children").read_text().split()}
        except FileNotFoundError:
            pass  # the thread has ended
    return found


def status_kib(pid, name):
    return int(re.search(rf"^{name}:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M).group(1))


def lives(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, timeout_s=LIMIT_S):
    deadline = time.monotonic() + timeout_s
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.01)


def only_waits(server):
    """The process id of the program that waits, once it is the only child."""
    def find():
        now = children(server)
        return now if len(now) == 1 else None
    return min(wait_until(find))


def decoder(server, waiting):
    """The child that decodes, once there is one that has taken up its work."""
    def find():
        others = children(server) - {waiting}
        return others if others and all(status_kib(pid, "VmHWM") > 0 for pid in others) else None
    return min(wait_until(find))


@pytest.fixture(scope="module")
def shared():
    server = Server(*BASE_FLAGS, "--video-memory", str(MEMORY_GIB), "--media-workers", "2", "--max-processor-cache", "0")
    yield server
    assert server.stop() == 0, server.log_text()


@pytest.fixture
def target(shared):
    """A server whose program waits; afterwards it answers, and no child and no descriptor is left."""
    for _ in range(2):
        check_video(shared)
    only_waits(shared)
    time.sleep(0.1)
    before_fds = len(os.listdir(f"/proc/{shared.process.pid}/fd"))
    before_mib = status_kib(shared.process.pid, "VmRSS") / 1024
    yield shared
    check_video(shared)
    only_waits(shared)
    shared.wait_for(lambda m: m["fastdeploy:mm_jobs_in_flight"] == 0 and m["fastdeploy:mm_bytes_in_flight"] == 0, LIMIT_S)
    wait_until(lambda: len(os.listdir(f"/proc/{shared.process.pid}/fd")) <= before_fds)
    assert SANITIZED or status_kib(shared.process.pid, "VmRSS") / 1024 <= before_mib + RSS_GROWTH_MIB
    shared.wait_idle(10)


# --- the program ends or stops ---------------------------------------------------------------------------------------------------

def test_a_killed_decoder_is_one_requests_error(target, slow_video):
    waiting = only_waits(target)
    tokens = 1500
    body = question(text="Tell a story.", max_tokens=tokens, ignore_eos=True, stream=True, stream_options={"include_usage": True},
                    return_token_ids=True)
    with (concurrent.futures.ThreadPoolExecutor() as pool, httpx.Client(base_url=target.url, timeout=CLIENT_TIMEOUT_S) as client,
          client.stream("POST", "/v1/chat/completions", json=body) as stream):
        lines = stream.iter_lines()
        next(lines)
        video = pool.submit(post, target, slow_video)
        pid = decoder(target, waiting)
        os.kill(pid, signal.SIGKILL)
        reason(video.result(), "messages[0].content[0].video_url", "signal 9")
        assert not lives(pid)
        check_video(target)
        ids, usage, last = [], None, ""
        for line in lines:
            if not line.startswith("data: {"):
                last = line or last
                continue
            chunk = json.loads(line.removeprefix("data: "))
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                ids += choice["delta"].get("completion_token_ids") or []
    assert last == "data: [DONE]"
    assert usage["completion_tokens"] == tokens
    alone = post(target, text="Tell a story.", max_tokens=tokens, ignore_eos=True, return_token_ids=True).json()
    expected = alone["choices"][0]["message"]["completion_token_ids"]
    assert len(expected) == tokens and ids == expected


def test_the_program_that_waits_may_be_killed(target, slow_video):
    waiting = only_waits(target)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        video = pool.submit(post, target, slow_video)
        pid = decoder(target, waiting)
        os.kill(waiting, signal.SIGKILL)
        for _ in range(3):
            check_video(target)  # by another one
        assert lives(pid)  # what it had forked goes on
        os.kill(pid, signal.SIGKILL)
        reason(video.result(), "signal 9")
    assert only_waits(target) != waiting


def test_the_program_that_waits_may_hang(start_server):
    """Stopped, it answers nobody: the video that asked gets an error in its own time, the next one has another program."""
    server = start_server(*BASE_FLAGS, "--video-timeout", "2", "--max-processor-cache", "0")
    check_video(server)
    waiting = only_waits(server)
    os.kill(waiting, signal.SIGSTOP)
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        video = pool.submit(post, server, video_part(H264))
        beside = post(server, text="Compute 45 + 11.")
        assert beside.status_code == 200
        assert video.result().status_code >= 500, video.result().text
    assert time.monotonic() - begin < LIMIT_S
    check_video(server)
    assert only_waits(server) != waiting and not lives(waiting)
    server.wait_idle(10)


def test_a_client_that_leaves_ends_its_decoder(target, slow_video):
    waiting = only_waits(target)
    client = httpx.Client(base_url=target.url, timeout=CLIENT_TIMEOUT_S)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        body = json.dumps(question(slow_video)).encode()
        video = pool.submit(client.post, "/v1/chat/completions", content=body, timeout=httpx.Timeout(CLIENT_TIMEOUT_S, read=1))
        pid = decoder(target, waiting)
        with pytest.raises(httpx.ReadTimeout):
            video.result()
    client.close()
    wait_until(lambda: not lives(pid))


@pytest.mark.parametrize("stop", [signal.SIGSTOP, 0])
def test_a_decoder_that_takes_too_long(start_server, slow_video, stop):
    server = start_server(*BASE_FLAGS, "--video-timeout", "1.5")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        check_video(server)
        waiting = only_waits(server)
        started = time.monotonic()
        video = pool.submit(post, server, slow_video)
        pid = decoder(server, waiting)
        os.kill(pid, stop)
        check_video(server)
        reason(video.result(), "1.5 s", "--video-timeout")
        assert time.monotonic() - started < LIMIT_S
    assert not lives(pid)
    check_video(server)
    assert only_waits(server) == waiting


@pytest.mark.parametrize("stopped", [False, True])
def test_a_server_that_dies_takes_its_decoders_along(slow_video, stopped):
    server = Server(*BASE_FLAGS)
    check_video(server)
    waiting = only_waits(server)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        video = pool.submit(post, server, slow_video)
        pid = decoder(server, waiting)
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        server.process.kill()
        server.process.wait()
        with pytest.raises(httpx.TransportError):
            video.result()
    try:
        wait_until(lambda: not lives(pid) and not lives(waiting), timeout_s=10)
    finally:
        for left in (pid, waiting):
            if lives(left):
                os.kill(left, signal.SIGKILL)
    server.http.close()
    server.client.close()


def test_a_stop_of_the_server_ends_decoders(slow_video):
    server = Server(*BASE_FLAGS, "--timeout-graceful-shutdown", "0.5")
    check_video(server)
    waiting = only_waits(server)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        video = pool.submit(post, server, slow_video)
        pid = decoder(server, waiting)
        assert server.stop() == 0
        reason(video.result())
    wait_until(lambda: not lives(pid) and not lives(waiting), timeout_s=10)


# --- files that mean harm --------------------------------------------------------------------------------------------------------

def harmless(server, data, kind="video/mp4"):
    """Answered, or refused with a reason, soon; the status."""
    started = time.monotonic()
    response = post(server, video_part(data_url(data, kind)))
    assert time.monotonic() - started < LIMIT_S
    if response.status_code != 200:
        assert response.status_code in (400, 413, 415), response.text
        assert len(reason(response, "messages[0].content[0].video_url: ")) > 60
    return response.status_code


def test_memory_is_bounded(target, slow_video):
    waiting = only_waits(target)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        video = pool.submit(post, target, slow_video)
        pid = decoder(target, waiting)
        time.sleep(1)  # it decodes
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
        assert SANITIZED or re.search(rf"^Max address space +{MEMORY_GIB << 30} ", limits, re.M), limits
        peak_kib = status_kib(pid, "VmHWM")
        os.kill(pid, signal.SIGKILL)
        video.result()
    assert 4 * LARGE[0] * LARGE[1] / 1024 < peak_kib < MEMORY_GIB << 20
    assert SANITIZED or status_kib(target.process.pid, "VmHWM") < 512 << 10


def test_a_hundred_thousand_frames(target):
    tiny = gif_video(16, 16, 100_000)
    response = post(target, video_part(tiny, max_frames=16))
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["prompt_tokens_details"]["video_tokens"] == video_tokens(16, 16, 16)
    large = post(target, video_part(tiny, min_frames=768, max_frames=768, min_pixels=28224))
    tokens = video_tokens(768, 16, 16, min_pixels=28224)
    assert any(int(number) > tokens for number in re.findall(r"\d+", reason(large, "4096", "Shorten the messages.")))
    assert large.json()["error"]["code"] == "context_length_exceeded"


def with_sizes(data, mark, at, layout, *values):
    """Each occurrence of mark has the values written `at` bytes behind its begin."""
    out = bytearray(data)
    found = 0
    for match in re.finditer(re.escape(mark), data):
        if match.start() + at + struct.calcsize(layout) <= len(data):
            struct.pack_into(layout, out, match.start() + at, *values)
            found += 1
    assert found
    return bytes(out)


def test_sizes_that_are_lies(target):
    files = {name: (MEDIA / name).read_bytes() for name in ("h264.mp4", "mpeg4.avi", "mjpeg.avi", "animated.gif", "animated.webp", "prores.mov")}
    for side in (0, 1, 65535):
        gif = files["animated.gif"]
        cases = [with_sizes(files["h264.mp4"], b"avc1", 28, ">HH", side, side), with_sizes(files["h264.mp4"], b"tkhd", 80, ">II", side << 16, side << 16),
                 with_sizes(files["mpeg4.avi"], b"strf", 12, "<ii", side, side), with_sizes(files["mjpeg.avi"], b"strf", 12, "<ii", side, side),
                 with_sizes(files["mjpeg.avi"], b"\xff\xc0", 5, ">HH", side, side), gif[:6] + struct.pack("<HH", side, side) + gif[10:],
                 with_sizes(files["animated.webp"], b"VP8X", 12, "<HBHB", (side - 1) & 0xffff, 0, (side - 1) & 0xffff, 0)]
        statuses = [harmless(target, data) for data in cases]
        if side == 65535:
            assert statuses[-2:] == [400, 400]
    for count in (2**31 - 1, 2**32 - 1):  # frames that a table claims
        harmless(target, with_sizes(files["h264.mp4"], b"stsz", 12, ">I", count))
        harmless(target, with_sizes(files["h264.mp4"], b"stts", 12, ">I", count))
        harmless(target, with_sizes(files["mpeg4.avi"], b"avih", 24, "<I", count))


@pytest.mark.parametrize("name", ["h264.mp4", "h264_fragmented.mp4"])
def test_truncated_files(target, name):
    data = (MEDIA / name).read_bytes()
    statuses = [harmless(target, data[:n * len(data) // 30]) for n in range(31)]
    assert statuses[0] == 400 and statuses[-1] == 200
    if name == "h264.mp4":  # its table of frames stands at the end
        assert data.index(b"moov") > data.index(b"mdat")
        assert statuses[:-1] == [400] * 30
    boxes = [m.start() - 4 for m in re.finditer(b"ftyp|moov|mdat|trak|mdia|minf|stbl|stsd|avcC|stts|stss|stsz|stco|moof|traf|trun", data)]
    for at in boxes:
        harmless(target, data[:at])
    for mark in (b"moov", b"mdat", b"stbl", b"stsd"):
        assert harmless(target, data.replace(mark, b"none")) == 400 or mark == b"mdat"


def test_flipped_bits(target):
    rng = random.Random(6)
    files = [(name, (MEDIA / name).read_bytes()) for name in READ if (MEDIA / name).stat().st_size < 20_000]
    assert len(files) > 10
    cases = []
    for n in range(100):
        name, data = files[n % len(files)]
        broken = bytearray(data)
        # Half of them in the first bytes, where the structure lies.
        places = min(len(data), 1024) if n % 2 else len(data)
        for _ in range(rng.choice((1, 2, 8, 64))):
            broken[rng.randrange(12, places)] ^= 1 << rng.randrange(8)
        cases.append(bytes(broken))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda data: harmless(target, data), cases))
    assert {200, 400} <= set(statuses)
    assert post(target, text="Compute 45 + 11.").json()["choices"][0]["message"]["content"] == "56"
