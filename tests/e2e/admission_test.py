"""Who is let in, when, and for how long: allowed tokens, priorities, time limits, and where fields may stand."""

import concurrent.futures
import json
import threading
import time

import httpx
import openai
import pytest

from conftest import CLIENT_TIMEOUT_S, ask, thinking

TEXT = "User: Compute 45 + 11.\nAssistant: <think>\n\n</think>\n\n"
LONG = {"prompt": TEXT, "ignore_eos": True, "temperature": 1, "seed": 1}


def complete(server, **body):
    return server.http.post("/v1/completions", json={"prompt": TEXT, "temperature": 0, "max_tokens": 16, **body})


def ids_of(server, **body):
    response = complete(server, return_token_ids=True, **body)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["completion_token_ids"]


def error_of(response, status):
    assert response.status_code == status, response.text
    return response.json()["error"]


def test_allowed_token_ids(server):
    free = ids_of(server, ignore_eos=True)
    allowed = sorted({*free[1:], 300, 301})
    assert free[0] in allowed or ids_of(server, ignore_eos=True, allowed_token_ids=allowed)[0] != free[0]
    for fields in ({}, {"temperature": 1.5, "seed": 4}, {"repetition_penalty": 1.5, "logit_bias": {"5": 100}},
                   {"bad_words_token_ids": [300], "min_tokens": 5}):
        got = ids_of(server, ignore_eos=True, allowed_token_ids=allowed, **fields)
        assert len(got) == 16 and set(got) <= set(allowed), (fields, got)
        if "bad_words_token_ids" in fields:
            assert 300 not in got
    assert set(ids_of(server, ignore_eos=True, allowed_token_ids=[301])) == {301}
    # By the official client, in a chat.
    reply = server.client.chat.completions.create(
        model="default", messages=ask("Hello"), max_tokens=8, logprobs=True,
        extra_body={**thinking(False), "allowed_token_ids": [301], "ignore_eos": True, "return_tokens_as_token_ids": True})
    assert {t.token for t in reply.choices[0].logprobs.content} == {"token_id:301"}


def test_allowed_tokens_that_words_forbid_are_the_clients_mistake(server):
    for fields in ({"allowed_token_ids": []}, {"allowed_token_ids": [301], "bad_words_token_ids": [301]},
                   {"allowed_token_ids": list(range(300, 1325))},
                   {"allowed_token_ids": [301], "bad_words_token_ids": [[301, 301]], "ignore_eos": True}):
        error = error_of(complete(server, **fields), 400)
        assert error["param"] == "allowed_token_ids", error
    assert "--max-allowed-token-ids" in error_of(complete(server, allowed_token_ids=list(range(300, 1325))), 400)["message"]


def test_bad_ids_leave_a_concurrent_request_alone(server):
    """Group P4: ids outside the vocabulary are refused, and whoever runs meanwhile gets the tokens it gets alone."""
    fields = {**LONG, "max_tokens": 300, "return_token_ids": True, "frequency_penalty": 0.5, "logprobs": 1}
    alone = server.http.post("/v1/completions", json=fields).json()["choices"][0]
    vocab = 1 << 31
    for _ in range(2):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            beside = pool.submit(lambda: server.http.post("/v1/completions", json=fields).json()["choices"][0])
            bad = []
            for token in (-1, vocab - 1, vocab, 1 << 40, 10_000_000):
                for body in ({"prompt": [5, token]}, {"stop_token_ids": [token]}, {"logit_bias": {str(token): 1}},
                             {"allowed_token_ids": [token]}, {"bad_words_token_ids": [token]}):
                    bad.append(pool.submit(complete, server, **body))
            fine = pool.submit(ids_of, server, allowed_token_ids=[301, 302], ignore_eos=True)
            assert [b.result().status_code for b in bad] == [400] * len(bad)
            assert set(fine.result()) <= {301, 302}
            got = beside.result()
        assert got["completion_token_ids"] == alone["completion_token_ids"]
        assert got["logprobs"] == alone["logprobs"]


class Blocker:
    """A stream that takes the only place of a server, for as long as it is open."""

    def __init__(self, server):
        self.closing = threading.Event()
        self.begun = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(server,))
        self.thread.start()
        assert self.begun.wait(CLIENT_TIMEOUT_S)

    def run(self, server):
        while not self.closing.is_set():
            with httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S) as client, client.stream(
                    "POST", "/v1/completions", json={**LONG, "priority": -100, "max_tokens": 3500, "stream": True}) as lines:
                for _ in lines.iter_lines():
                    self.begun.set()
                    if self.closing.is_set():
                        return

    def close(self):
        self.closing.set()
        self.thread.join()


def test_priorities_order_the_queue(start_server):
    server = start_server("--max-model-len", "4096", "--max-num-seqs", "1")
    blocker = Blocker(server)
    order = []

    def ask_for(priority):
        response = complete(server, priority=priority, max_tokens=1)
        assert response.status_code == 200, response.text
        order.append(priority)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = []
        for count, priority in enumerate((7, 0, 3, -2)):
            waiting.append(pool.submit(ask_for, priority))
            server.wait_for(lambda m, n=count: m["fastdeploy:num_requests_waiting"] >= n + 1, 30)
        blocker.close()
        for request in waiting:
            request.result()
    assert order == [-2, 0, 3, 7]


def test_max_waiting_time(start_server):
    server = start_server("--max-model-len", "4096", "--max-num-seqs", "1", "--max-waiting-time", "0.5")
    assert complete(server).status_code == 200
    blocker = Blocker(server)
    begin = time.monotonic()
    error = error_of(complete(server), 408)
    assert time.monotonic() - begin >= 0.5
    assert error["code"] == "timeout" and "--max-waiting-time" in error["message"] and "0.5" in error["message"]
    stream = complete(server, stream=True)  # nothing was sent yet: a plain reply
    assert error_of(stream, 408)["type"] == "timeout_error"
    blocker.close()
    assert complete(server).status_code == 200
    server.wait_idle(30)


@pytest.mark.parametrize("value", ["0", "-2", "soon"])
def test_max_waiting_time_is_checked(value):
    import subprocess
    from conftest import BINARY, MODEL
    run = subprocess.run([BINARY, "serve", "--model", MODEL, "--max-waiting-time", value], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "--max-waiting-time" in run.stderr


def test_timeout_of_a_request(server):
    many = {"n": 8, "max_tokens": 3900, "ignore_eos": True, "temperature": 1}
    error = error_of(complete(server, timeout=0.3, **many), 408)
    assert error["param"] == "timeout" and error["type"] == "timeout_error" and "0.3 seconds" in error["message"]
    with pytest.raises(openai.APIStatusError) as raised:
        server.client.completions.create(model="default", prompt=TEXT, extra_body={"timeout": 0.3, **many})
    assert raised.value.status_code == 408
    for _ in range(5):  # the first token may be late on a busy machine
        with server.http.stream("POST", "/v1/completions", json={"prompt": TEXT, "stream": True, "timeout": 0.7, **many}) as stream:
            lines = [line for line in stream.iter_lines() if line]
            if stream.status_code == 200:
                break
            assert stream.status_code == 408
    else:
        pytest.fail("no token within 0.7 seconds")
    assert lines[-1] == "data: [DONE]"
    error = json.loads(lines[-2].removeprefix("data: "))["error"]
    assert error["param"] == "timeout" and error["code"] == "timeout"
    assert len(lines) > 3 and "choices" in lines[0]
    # Enough time changes nothing, and nothing is left behind.
    assert ids_of(server, timeout=60) == ids_of(server)
    server.wait_idle(30)


def test_fields_in_extra_body_and_metadata(server):
    plain = ids_of(server, logit_bias={"301": 100}, max_tokens=4, ignore_eos=True)
    assert plain == [301] * 4
    inside = {"max_tokens": 4, "logit_bias": {"301": 100}, "ignore_eos": True, "nobody_knows": 1}
    response = complete(server, return_token_ids=True, max_tokens=None, extra_body=inside)
    assert response.json()["choices"][0]["completion_token_ids"] == plain
    assert response.headers["x-fastdeploy-ignored"] == "nobody_knows"
    response = complete(server, return_token_ids=True, max_tokens=None,
                        metadata={"max_tokens": 4, "logit_bias": {"301": 100}, "ignore_eos": True, "model": "a note", "mine": 7})
    assert response.json()["choices"][0]["completion_token_ids"] == plain
    assert "x-fastdeploy-ignored" not in response.headers
    assert error_of(complete(server, extra_body=[]), 400)["param"] == "extra_body"


def test_an_answer_that_goes_on(server):
    """completion_token_ids: the second half, asked for with the first as its beginning, is the same."""
    body = {"model": "default", "messages": ask("Compute 45 + 11."), "temperature": 0, "max_tokens": 16, "return_token_ids": True, **thinking(False)}
    whole = server.http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    ids = whole["completion_token_ids"]
    assert len(ids) >= 2
    rest = server.http.post("/v1/chat/completions", json={**body, "completion_token_ids": ids[:1]}).json()
    assert rest["choices"][0]["message"]["completion_token_ids"] == ids[1:]
    assert rest["usage"]["prompt_tokens"] == len(whole["prompt_token_ids"]) + 1


def test_prompts_cut_from_the_left(server):
    response = complete(server, prompt=[5, 6, 7, 8], truncate_prompt_tokens=2, return_token_ids=True, max_tokens=1)
    assert response.json()["choices"][0]["prompt_token_ids"] == [7, 8]
    long = complete(server, prompt=[5] * 5000, truncate_prompt_tokens=-1, max_tokens=8)
    assert long.status_code == 200 and long.json()["usage"]["prompt_tokens"] == 4096 - 8
    assert error_of(complete(server, prompt=[5] * 5000), 400)["code"] == "context_length_exceeded"
