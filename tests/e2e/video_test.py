"""Videos of requests: every format, the options and where they may stand, turns with pictures, and a machine without the program."""

import http.server
import json
import os
import pathlib
import shutil
import struct
import subprocess
import threading

import pytest

from conftest import ask, BASE_FLAGS, BINARY, EVAL, image_part, MODEL, Server, thinking, without_cached
from video_files import MEDIA, READ, REFUSED, data_url, gif_video, sampled, tokens_of, video_part, video_tokens

H264 = (MEDIA / "h264.mp4").read_bytes()
LONG = gif_video(64, 48, 500, delay_cs=4)  # 20 s
PICTURE = EVAL / "media" / "dialogue-000-0.png"
PROGRAM = pathlib.Path(BINARY).with_name("fastdeploy-media")


def post(server, parts, **fields):
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}]
    return server.http.post("/v1/chat/completions", json={"messages": messages, "temperature": 0, "max_tokens": 4, **thinking(False),
                                                          **fields})


def usage(server, *parts, **fields):
    """(picture tokens, video tokens) of an answered question."""
    response = post(server, parts, **fields)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert reply["choices"][0]["finish_reason"] in ("stop", "length")
    details = reply["usage"]["prompt_tokens_details"]
    assert reply["usage"]["prompt_tokens"] > details["image_tokens"] + details["video_tokens"]
    return details["image_tokens"], details["video_tokens"]


def refused(server, parts, *words, status=400, **fields):
    response = post(server, parts, **fields)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    for word in words:
        assert word in error["message"], error
    return error


# --- formats and sources ---------------------------------------------------------------------------------------------------------

class Web(http.server.BaseHTTPRequestHandler):
    """The files of tests/media by name."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802  http.server's name
        data = (MEDIA / pathlib.PurePosixPath(self.path).name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def sources():
    """(a server that may read tests/media and dial one place, that place)"""
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    web.daemon_threads = True
    threading.Thread(target=web.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTDEPLOY_TEST_PUBLIC_ENDPOINTS", f"127.0.0.1:{web.server_address[1]}")
        server = Server(*BASE_FLAGS, "--allowed-local-media-path", str(MEDIA), "--max-processor-cache", "0")
    yield server, f"http://127.0.0.1:{web.server_address[1]}/"
    code = server.stop()
    web.shutdown()
    web.server_close()
    assert code == 0, server.log_text()


def urls_of(name, place):
    return data_url((MEDIA / name).read_bytes()), f"file://{MEDIA / name}", place + name


@pytest.mark.parametrize("name", READ)
def test_every_format_from_every_source(sources, name):
    server, place = sources
    frames, seconds = READ[name]
    for url in urls_of(name, place):
        assert usage(server, video_part(url)) == (0, video_tokens(sampled(frames, seconds))), url[:60]
        assert usage(server, video_part(url, fps=-1, target_frames=6)) == (0, video_tokens(min(frames, 6)))


@pytest.mark.parametrize("name", REFUSED)
def test_codecs_that_are_not_read(sources, name):
    server, place = sources
    for url in urls_of(name, place):
        refused(server, [video_part(url)], "messages[0].content[0].video_url", REFUSED[name], "H.264")


def test_spellings(server):
    url = data_url(H264)
    replies = []
    for part in ({"type": "video_url", "video_url": {"url": url}}, {"type": "video_url", "video_url": url}, {"type": "video", "video": url},
                 {"type": "video", "video": {"url": url}}, {"type": "video_url", "video_url": {"url": url}, "uuid": "a video"},
                 {"type": "video_url", "video_url": None, "uuid": "a video"}):
        response = post(server, [part])
        assert response.status_code == 200, response.text
        replies.append((response.json()["choices"][0]["message"]["content"], without_cached(response.json()["usage"])))
    assert all(r == replies[0] for r in replies)


def test_pictures_sent_as_videos_and_videos_as_pictures(server):
    for name in ("dialogue-000-0.png", "color_of-001-0.jpg"):
        refused(server, [video_part((EVAL / "media" / name).read_bytes())], "messages[0].content[0].video_url", "image_url")
    refused(server, [video_part(b"hello world" * 10)], "no video", "MP4")
    for name in ("h264.mp4", "h264_rotate90.mov", "vp8.webm", "hevc_10bit.mkv", "mpeg4.avi"):
        part = {"type": "image_url", "image_url": {"url": data_url((MEDIA / name).read_bytes())}}
        refused(server, [part], "messages[0].content[0].image_url", "video_url", status=415)
    for name in ("animated.gif", "animated.webp"):  # both: the first frame is a picture
        part = {"type": "image_url", "image_url": {"url": data_url((MEDIA / name).read_bytes())}}
        assert usage(server, part) == (tokens_of(64, 48, 3136, 200704), 0)
        assert usage(server, video_part((MEDIA / name).read_bytes())) == (0, video_tokens(6))


# --- options ---------------------------------------------------------------------------------------------------------------------

OPTIONS = [{}, {"fps": 1}, {"fps": 0.5}, {"fps": 4}, {"fps": 25}, {"fps": 1000}, {"min_frames": 60}, {"max_frames": 11},
           {"min_frames": 13, "max_frames": 13}, {"fps": -1, "target_frames": 1}, {"fps": -1, "target_frames": 7},
           {"fps": -1, "target_frames": 180}, {"fps": -1, "target_frames": 9, "frames_sample": "middle"},
           {"fps": -1, "target_frames": 9, "frames_sample": "rand"}, {"frames_sample": "leading", "fps": 1}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_a_part(server, options):
    expected = (0, video_tokens(sampled(500, 20.0, **{k: v for k, v in options.items() if k != "frames_sample"})))
    inside, beside = video_part(LONG, **options), {**video_part(LONG), **options}
    assert usage(server, inside) == expected
    assert usage(server, beside) == expected
    assert usage(server, video_part(LONG), mm_processor_kwargs={"video_" + k: v for k, v in options.items()}) == expected
    assert usage(server, video_part(LONG), mm_processor_kwargs=options) == expected


def test_who_goes_before_whom(server):
    part = {**video_part(LONG, max_frames=6), "max_frames": 8, "fps": 1, "max_pixels": 10000}
    assert usage(server, part, mm_processor_kwargs={"video_max_frames": 10, "video_fps": 5}) == (0, video_tokens(6, max_pixels=10000))
    part = {**video_part(LONG), "max_frames": 8}
    assert usage(server, part, mm_processor_kwargs={"video_max_frames": 10, "video_fps": 5}) == (0, video_tokens(8))
    wide = gif_video(400, 300, 20)
    assert usage(server, video_part(wide)) == (0, video_tokens(1, 400, 300))  # 0.8 s at 2 a second
    for limit in (7056, 14000, 20000):
        assert usage(server, video_part(wide, max_pixels=limit)) == (0, video_tokens(1, 400, 300, max_pixels=limit))
    assert usage(server, video_part(wide), mm_processor_kwargs={"video_max_pixels": 14000}) == (0, video_tokens(1, 400, 300, max_pixels=14000))
    two = [video_part(LONG, fps=1), video_part(LONG, fps=3)]
    assert usage(server, *two) == (0, video_tokens(20) + video_tokens(60))


def test_options_of_the_server(start_server):
    kwargs = {"video_fps": 1, "video_min_frames": 4, "video_max_frames": 15, "video_max_pixels": 8000, "video_frames_sample": "middle"}
    server = start_server("--max-model-len", "4096", "--mm-processor-kwargs", json.dumps(kwargs), "--max-video-frames", "50",
                          "--limit-mm-per-prompt", '{"image": 2, "video": 1}', "--max-video-pixels", "100000", "--max-video-bytes", "200000")
    assert usage(server, video_part(LONG)) == (0, video_tokens(15, max_pixels=8000))
    assert usage(server, video_part(LONG, fps=0.5)) == (0, video_tokens(10, max_pixels=8000))
    assert usage(server, video_part(H264)) == (0, video_tokens(4, max_pixels=8000))
    assert usage(server, video_part(LONG, max_frames=50, fps=2)) == (0, video_tokens(40, max_pixels=8000))
    refused(server, [video_part(LONG, max_frames=51)], "max_frames is 51", "50", "--max-video-frames")
    refused(server, [video_part(LONG, max_pixels=8001)], "max_pixels is 8001", "8000", "--mm-processor-kwargs")
    refused(server, [video_part(gif_video(400, 300, 2))], "400 x 300", "100000", "--max-video-pixels")
    refused(server, [video_part(LONG + bytes(200000))], "200000", "--max-video-bytes", status=413)
    refused(server, [video_part(LONG), video_part(LONG)], "2 videos", "at most 1", "--limit-mm-per-prompt")


@pytest.mark.parametrize("options, words", [
    ({"fps": 0}, ["fps"]), ({"fps": "2"}, ["fps", "number"]), ({"fps": -1}, ["fps is -1", "target_frames"]), ({"fps": 1001}, ["fps", "1000"]),
    ({"min_frames": 0}, ["min_frames", "1"]), ({"max_frames": 0}, ["max_frames"]), ({"max_frames": 1.5}, ["max_frames", "1.5"]),
    ({"max_frames": True}, ["max_frames"]), ({"max_frames": 769}, ["max_frames is 769", "768", "--max-video-frames"]),
    ({"min_frames": 181}, ["min_frames is 181", "max_frames", "180"]), ({"min_frames": 9, "max_frames": 8}, ["min_frames is 9", "8"]),
    ({"target_frames": 8}, ["target_frames is 8", '"fps": -1']), ({"target_frames": 0, "fps": -1}, ["target_frames"]),
    ({"target_frames": 200, "fps": -1}, ["target_frames is 200", "180"]), ({"frames_sample": "last"}, ["frames_sample", "leading", "middle"]),
    ({"min_pixels": 9000, "max_pixels": 8000}, ["min_pixels", "9000", "8000"]), ({"max_pixels": 28225}, ["max_pixels", "28225", "28224"]),
    ({"min_pixels": -5}, ["min_pixels"]),
], ids=str)
def test_options_that_are_wrong(server, options, words):
    where = "messages[0].content[1]"
    for part in (video_part(H264, **options), {**video_part(H264), **options}):
        assert refused(server, [{"type": "text", "text": "a"}, part], where, *words)["param"] == "messages"
    refused(server, [video_part(H264)], *(w for w in words if not w.startswith(("min_", "max_"))),
            mm_processor_kwargs={"video_" + k: v for k, v in options.items()})


# --- turns -----------------------------------------------------------------------------------------------------------------------

def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def fields_of(data):
    """(number, value) of a protocol buffer's fields."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        else:
            size = {1: 8, 5: 4}[kind]
            value, at = data[at:at + size], at + size
        yield key >> 3, value


@pytest.fixture(scope="module")
def words():
    """Token id -> its text, from the model's files alone."""
    folder = pathlib.Path(MODEL)
    pieces = [dict(fields_of(piece))[1].decode() for number, piece in fields_of((folder / "tokenizer.model").read_bytes()) if number == 1]
    table = {i: "\n" if p == "<0x0A>" else p.replace("\u2581", " ") for i, p in enumerate(pieces)}
    table.update({i: text for text, i in json.loads((folder / "added_tokens.json").read_text()).items()})
    return table


def png_size(data):
    return struct.unpack(">II", data[16:24])


def test_pictures_and_videos_in_any_order_and_turn(server, words):
    pictures = [(EVAL / "media" / f"multi_image-000-{i}.png").read_bytes() for i in (0, 2)]
    odd = {"fps": -1, "target_frames": 5}
    turns = [("user", [("video", H264, {}), "First. ", ("image", pictures[0], {}), ("video", LONG, odd), "What?"]), ("assistant", "A."),
             ("user", ["Next: ", ("image", pictures[1], {}), ("image", pictures[0], {})]), ("assistant", "B and C."),
             ("user", [("image", pictures[1], {}), ("video", H264, odd), "and", ("video", (MEDIA / "animated.gif").read_bytes(), {}), "?"])]
    messages, text, runs = [], "<|begin_of_sentence|>", []
    counts = {"image": 0, "video": 0}
    frames = {H264: (100, 4.0), LONG: (500, 20.0)}
    for role, content in turns:
        parts = []
        text += "User: " if role == "user" else "\nAssistant: "
        for item in [content] if isinstance(content, str) else content:
            if isinstance(item, str):
                parts.append({"type": "text", "text": item})
                text += item
                continue
            kind, data, options = item
            counts[kind] += 1
            if kind == "image":
                parts.append(image_part(data))
                runs.append(("image", tokens_of(*png_size(data), 3136, 200704)))
                text += f"Picture {counts[kind]}:<|IMAGE_START|>@<|IMAGE_END|>"
            else:
                parts.append(video_part(data, **options))
                runs.append(("video", video_tokens(sampled(*frames.get(data, (30, 3.0)), **options))))
                text += f"Video {counts[kind]}:<|VIDEO_START|>@<|VIDEO_END|>"
        messages.append({"role": role, "content": content if isinstance(content, str) else parts})
        text += "<|end_of_sentence|>" if role == "assistant" else ""
    text += "\nAssistant: <think>\n\n</think>\n\n"

    response = server.http.post("/v1/chat/completions", json={"messages": messages, "temperature": 0, "max_tokens": 1, "return_token_ids": True,
                                                              **thinking(False)})
    assert response.status_code == 200, response.text
    reply = response.json()
    ids = reply["choices"][0]["message"]["prompt_token_ids"]
    seen, seen_runs = "", []
    marks = {"<|IMAGE_PLACEHOLDER|>": "image", "<|image@placeholder|>": "image", "<|VIDEO_PLACEHOLDER|>": "video", "<|video@placeholder|>": "video"}
    for n, token in enumerate(ids):
        kind = marks.get(words[token])
        if kind is None:
            seen += words[token]
        elif n > 0 and ids[n - 1] == token:
            seen_runs[-1][1] += 1
        else:
            seen += "@"
            seen_runs.append([kind, 1])
    assert [tuple(r) for r in seen_runs] == runs
    assert seen == text
    assert reply["usage"]["prompt_tokens"] == len(ids)
    details = reply["usage"]["prompt_tokens_details"]
    for kind in ("image", "video"):
        assert details[kind + "_tokens"] == sum(n for k, n in runs if k == kind)


# --- without the program ---------------------------------------------------------------------------------------------------------

def alone(tmp_path):
    """The server's program without what lies beside it."""
    shutil.copy2(BINARY, tmp_path / "fastdeploy")
    return str(tmp_path / "fastdeploy")


def still_sees_pictures(server):
    messages = ask("How many shapes are there?", PICTURE)
    reply = server.http.post("/v1/chat/completions", json={"messages": messages, "temperature": 0, **thinking(False)})
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


def test_without_the_program(start_server, server, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    lonely = start_server("--max-model-len", "2048", "--limit-mm-per-prompt", '{"image": 2, "video": 2}', binary=alone(tmp_path))
    for _ in range(2):
        message = refused(lonely, [video_part(H264)], "fastdeploy-media", "install")["message"]
        assert str(tmp_path) not in message
    assert still_sees_pictures(lonely) == still_sees_pictures(server)
    script = tmp_path / "fastdeploy-media"
    script.write_text("#!/bin/sh\nexit 127\n")  # as the loader of libraries ends
    script.chmod(0o755)
    refused(lonely, [video_part(H264)], "shared library", "install")
    script.write_text("#!/bin/sh\nexit 2\n")
    refused(lonely, [video_part(H264)], "another version")
    script.write_text("no program")
    refused(lonely, [video_part(H264)], "install")
    script.write_text("#!/bin/sh\nexec sleep 0\n")  # says nothing and ends
    assert 400 <= post(lonely, [video_part(H264)]).status_code < 504
    assert still_sees_pictures(lonely) == still_sees_pictures(server)
    script.unlink()
    shutil.copy2(PROGRAM, script)  # installed while the server runs
    assert usage(lonely, video_part(H264)) == (0, video_tokens(8))


def test_the_program_by_hand():
    result = subprocess.run([PROGRAM], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert result.returncode == 2 and "not used by hand" in result.stderr and not result.stdout
