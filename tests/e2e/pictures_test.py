"""Pictures of requests: turns, uuids, detail, limits, and that many of them hold up nobody."""

import json
import socket
import subprocess
import threading
import time

import httpx
import pytest
from conftest import ask, BINARY, CLIENT_TIMEOUT_S, EVAL, image_part, MODEL, thinking, without_cached
from png_file import grey_png

PICTURE = EVAL / "media" / "dialogue-000-0.png"
QUESTION = "How many shapes are there?"
LIMITS = ("--limit-mm-per-prompt", '{"image": 100, "video": 100}', "--reasoning-parser", "ernie-45-vl")


def post(server, body, **keywords):
    return server.http.post("/v1/chat/completions", json={"temperature": 0, **thinking(False), **body}, **keywords)


def answer(server, messages, **fields):
    response = post(server, {"messages": messages, **fields})
    assert response.status_code == 200, response.text
    reply = response.json()
    return reply["choices"][0]["message"]["content"], without_cached(reply["usage"])


def refused(server, body, *words):
    response = post(server, body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    for word in words:
        assert word in error["message"], error
    return error


def many(count, side, first_level):
    """A question with many heavy pictures that become four tokens each."""
    parts = [{**image_part(grey_png(side, first_level + i)), "max_pixels": 60 * 60} for i in range(count)]
    return [{"role": "user", "content": parts + [{"type": "text", "text": "What?"}]}]


def counters(server):
    metrics = server.metrics()
    return {name: metrics["fastdeploy:mm_" + name] for name in
            ("images_prepared_total", "processor_cache_hits_total", "processor_cache_misses_total", "jobs_in_flight",
             "bytes_in_flight")}


def test_pictures_over_several_turns(server):
    other = EVAL / "media" / "multi_image-000-0.png"
    first, _ = answer(server, ask(QUESTION, PICTURE))
    messages = ask(QUESTION, PICTURE) + [{"role": "assistant", "content": first}] + ask("And here?", other)
    text, usage = answer(server, messages, max_tokens=8)
    alone = [answer(server, ask(QUESTION, p), max_tokens=1)[1]["prompt_tokens_details"]["image_tokens"] for p in (PICTURE, other)]
    assert usage["prompt_tokens_details"]["image_tokens"] == sum(alone)
    assert usage["prompt_tokens_details"]["video_tokens"] == 0
    assert usage["prompt_tokens"] > sum(alone)
    # The picture of the first turn is still seen from the third.
    messages = ask(QUESTION, PICTURE) + [{"role": "assistant", "content": first}]
    messages += [{"role": "user", "content": "Is there a blue diamond?"}]
    assert answer(server, messages)[0] == "Yes."


def test_every_spelling_gives_the_same_answer(server):
    url = image_part(PICTURE)["image_url"]["url"]
    expected, usage = answer(server, ask(QUESTION, PICTURE))
    for part in ({"type": "image_url", "image_url": url}, {"type": "image", "image": url},
                 {"type": "image", "image": {"url": url}}, {"type": "input_image", "image_url": url},
                 {"type": "image_url", "image_url": {"url": url, "detail": "high"}}):
        messages = [{"role": "user", "content": [part, {"type": "input_text", "text": QUESTION}]}]
        assert answer(server, messages) == (expected, usage), part["type"]


def test_uuid_reuses_a_picture(server):
    before = counters(server)
    part = {**image_part(PICTURE), "uuid": "shapes"}
    text = {"type": "text", "text": QUESTION}
    expected = answer(server, [{"role": "user", "content": [part, text]}])
    for again in ({"type": "image_url", "uuid": "shapes"}, {"type": "image_url", "image_url": None, "uuid": "shapes"},
                  {"type": "image_url", "image_url": {"url": None, "uuid": "shapes"}}):
        assert answer(server, [{"role": "user", "content": [again, text]}]) == expected
    after = counters(server)
    assert after["processor_cache_hits_total"] >= before["processor_cache_hits_total"] + 3
    assert after["images_prepared_total"] <= before["images_prepared_total"] + 1
    refused(server, {"messages": [{"role": "user", "content": [{"type": "image_url", "uuid": "never sent"}, text]}]},
            "messages[0].content[0].image_url", "never sent", "send it again")


def test_uuids_belong_to_their_api_key(start_server):
    server = start_server(*LIMITS, "--api-key", "key-one", "--api-key", "key-two", "--max-model-len", "2048")
    part = {**image_part(PICTURE), "uuid": "mine"}
    again = {"type": "image_url", "uuid": "mine"}

    def send(key, content):
        return post(server, {"messages": [{"role": "user", "content": [content]}], "max_tokens": 2},
                    headers={"Authorization": f"Bearer {key}"}).status_code

    assert send("key-one", part) == 200
    assert send("key-one", again) == 200
    assert send("key-two", again) == 400
    assert send("key-two", part) == 200
    assert send("key-two", again) == 200


def test_no_processor_cache(start_server):
    server = start_server(*LIMITS, "--max-processor-cache", "-1", "--max-model-len", "2048")
    assert answer(server, ask(QUESTION, PICTURE)) == answer(server, ask(QUESTION, PICTURE))
    assert counters(server)["images_prepared_total"] == 2
    assert counters(server)["processor_cache_hits_total"] == 0
    refused(server, {"messages": [{"role": "user", "content": [{"type": "image_url", "uuid": "x"}]}]}, "--max-processor-cache 0")


def test_the_same_picture_is_prepared_once(server):
    picture = grey_png(300, 201)
    before = counters(server)
    first = answer(server, ask(QUESTION, *[PICTURE]) + [{"role": "assistant", "content": "4"}] +
                   [{"role": "user", "content": [image_part(picture)] * 5 + [{"type": "text", "text": "What?"}]}], max_tokens=4)
    second = answer(server, ask(QUESTION, *[PICTURE]) + [{"role": "assistant", "content": "4"}] +
                    [{"role": "user", "content": [image_part(picture)] * 5 + [{"type": "text", "text": "What?"}]}], max_tokens=4)
    assert first == second
    assert counters(server)["images_prepared_total"] <= before["images_prepared_total"] + 2


def test_detail_and_pixel_limits(start_server):
    server = start_server(*LIMITS, "--max-model-len", "4096", "--mm-processor-kwargs", '{"image_max_pixels": 401408}')
    picture = grey_png(1200, 90)

    def tokens(part=None, inside=None, **body):
        content = image_part(picture)
        content["image_url"].update(inside or {})
        content.update(part or {})
        _, usage = answer(server, [{"role": "user", "content": [content]}], max_tokens=1, **body)
        return usage["prompt_tokens_details"]["image_tokens"]

    full = 22 * 22  # rounded down to multiples of 28
    assert tokens() == full
    assert tokens(inside={"detail": "auto"}) == full
    assert tokens(inside={"detail": "high"}) == full
    assert tokens(inside={"detail": "low"}) == 18 * 18  # 504 x 504, the most that 512 x 512 pixels hold
    assert tokens(part={"max_pixels": 60 * 60}) == 4
    assert tokens(inside={"max_pixels": 90 * 90}) == 9
    assert tokens(mm_processor_kwargs={"image_max_pixels": 120 * 120}) == 16
    assert tokens(part={"max_pixels": 60 * 60}, mm_processor_kwargs={"image_max_pixels": 120 * 120}) == 4

    def refuse(inside, *words, **body):
        content = image_part(picture)
        content["image_url"].update(inside)
        return refused(server, {"messages": [{"role": "user", "content": [content]}], **body}, *words)

    refuse({"max_pixels": 401409}, "messages[0].content[0].image_url.max_pixels", "401409", "401408", "--mm-processor-kwargs")
    refuse({"max_pixels": -1}, "max_pixels")
    refuse({"max_pixels": 5000, "min_pixels": 6000}, "5000", "6000")
    refuse({"detail": "huge"}, "detail", "huge", "low")
    error = refuse({}, "image_max_pixels", "401408", mm_processor_kwargs={"image_max_pixels": 10 ** 7})
    assert error["param"] == "mm_processor_kwargs"
    refuse({}, "not known", mm_processor_kwargs={"zoom": 2})
    refuse({}, "spatial_conv_size", mm_processor_kwargs={"spatial_conv_size": 3})


def test_counts_are_checked_over_all_turns_before_anything_is_read(start_server):
    server = start_server("--limit-mm-per-prompt", '{"image": 3, "video": 1}')
    turn = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}] * 2}
    refused(server, {"messages": [turn, {"role": "assistant", "content": "a"}, turn]}, "4 pictures", "at most 3",
            "--limit-mm-per-prompt")
    video = {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}]}
    refused(server, {"messages": [video, video]}, "2 videos", "at most 1", "--limit-mm-per-prompt")
    assert counters(server)["jobs_in_flight"] == 0


def test_pictures_that_cannot_fit_are_not_decoded(server):
    before = counters(server)["images_prepared_total"]
    parts = [image_part(grey_png(900, i)) for i in range(60)]  # 225 tokens each
    error = refused(server, {"messages": [{"role": "user", "content": parts}]}, "4096")
    assert error["code"] == "context_length_exceeded"
    numbers = [int(word) for word in error["message"].replace(",", " ").split() if word.isdigit()]
    assert any(n > 60 * 196 for n in numbers), error
    assert counters(server)["images_prepared_total"] == before


def test_errors_name_the_part(server):
    good, bad = image_part(PICTURE), {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = ask("Hello.") + [{"role": "assistant", "content": "Hi."}, {"role": "user", "content": [good, bad, good]}]
    response = post(server, {"messages": messages})
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["message"].startswith("messages[2].content[1].image_url: ")
    for part in ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, {"type": "audio_url", "audio_url": "x"}):
        refused(server, {"messages": [{"role": "user", "content": [part]}]}, "audio")


@pytest.mark.slow
def test_many_pictures_hold_up_no_text(server):
    order = []

    def pictures():
        response = post(server, {"messages": many(60, 2500, 0), "max_tokens": 4})
        order.append(("pictures", response.status_code, response.json()["usage"]["prompt_tokens_details"]["image_tokens"]))

    thread = threading.Thread(target=pictures)
    thread.start()
    server.wait_for(lambda m: m["fastdeploy:mm_jobs_in_flight"] > 0, 60)
    for _ in range(3):
        with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client:
            reply = client.post("/v1/chat/completions", json={"messages": ask("Compute 45 + 11."), "temperature": 0, **thinking(False)})
        assert reply.json()["choices"][0]["message"]["content"] == "56"
        order.append(("text", reply.status_code, 0))
    thread.join()
    assert order == [("text", 200, 0)] * 3 + [("pictures", 200, 60 * 4)]


@pytest.mark.slow
def test_a_single_picture_goes_before_the_rest_of_many(server):
    order = []

    def pictures():
        order.append(("many", post(server, {"messages": many(60, 2500, 60), "max_tokens": 1}).status_code))

    thread = threading.Thread(target=pictures)
    thread.start()
    server.wait_for(lambda m: m["fastdeploy:mm_jobs_in_flight"] > 0, 60)
    with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client:
        body = {"messages": ask(QUESTION, PICTURE), "max_tokens": 4, **thinking(False)}
        order.append(("one", client.post("/v1/chat/completions", json=body).status_code))
    thread.join()
    assert order == [("one", 200), ("many", 200)]


@pytest.mark.slow
def test_a_client_that_leaves_ends_its_loading(server):
    before = counters(server)["images_prepared_total"]
    body = json.dumps({"messages": many(60, 2500, 120)}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                           b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
        server.wait_for(lambda m: m["fastdeploy:mm_jobs_in_flight"] > 0, 60)
    left = time.monotonic()
    server.wait_for(lambda m: m["fastdeploy:mm_jobs_in_flight"] == 0 and m["fastdeploy:mm_bytes_in_flight"] == 0, 30)
    assert time.monotonic() - left < 30
    assert counters(server)["images_prepared_total"] < before + 60
    assert answer(server, ask("Compute 45 + 11."))[0] == "56"


@pytest.mark.slow
def test_a_stop_does_not_wait_for_pictures(start_server):
    server = start_server(*LIMITS, "--max-model-len", "4096", "--timeout-graceful-shutdown", "0.5", "--media-workers", "1")
    body = {"messages": many(80, 3000, 0), "max_tokens": 1}
    replies = []
    thread = threading.Thread(target=lambda: replies.append(post(server, body)))
    thread.start()
    server.wait_for(lambda m: m["fastdeploy:mm_jobs_in_flight"] > 0, 60)
    server.process.terminate()
    thread.join()
    assert replies[0].status_code in (200, 503)
    assert server.process.wait(timeout=30) == 0


@pytest.mark.parametrize("flags,words", [
    (["--mm-processor-kwargs", "{image_max_pixels: 5}"], ["--mm-processor-kwargs", "JSON"]),
    (["--mm-processor-kwargs", "[]"], ["--mm-processor-kwargs", "object"]),
    (["--mm-processor-kwargs", '{"image_max_pixel": 5}'], ["--mm-processor-kwargs", "image_max_pixel", "image_max_pixels"]),
    (["--mm-processor-kwargs", '{"image_max_pixels": "5"}'], ["--mm-processor-kwargs", "image_max_pixels", "integer"]),
    (["--mm-processor-kwargs", '{"temporal_conv_size": 3}'], ["--mm-processor-kwargs", "temporal_conv_size", "2"]),
    (["--mm-processor-kwargs", '{"video_min_frames": 500}'], ["--mm-processor-kwargs", "500", "180"]),
    (["--media-workers", "0"], ["--media-workers", "1"]),
    (["--media-memory", "much"], ["--media-memory", "GiB"]),
    (["--max-processor-cache", "-2"], ["--max-processor-cache", "GiB"]),
])
def test_wrong_flags(flags, words):
    result = subprocess.run([BINARY, "serve", "--model", MODEL, "--port", "0", *flags], capture_output=True, text=True, timeout=60)
    assert result.returncode in (1, 2)
    for word in words:
        assert word in result.stderr, result.stderr
