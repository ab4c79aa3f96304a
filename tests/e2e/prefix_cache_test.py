"""The prefix cache as users see it: cached tokens in every API's usage, salts, the flag, metrics, and the same answers."""

import json
import re
import subprocess
import sys
import uuid

import anthropic
import pytest

from conftest import BASE_FLAGS, BINARY, CLIENT_TIMEOUT_S, EVAL, MODEL, ROOT, ask, thinking

PICTURE = EVAL / "media" / "describe-000-0.png"
WORDS = " ".join(f"word{i}" for i in range(60))
IDS = [300 + i % 700 for i in range(150)]


def salt():
    """Nobody has computed anything under it."""
    return uuid.uuid4().hex


def post(server, path, **body):
    reply = server.http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def complete(server, prompt=None, **fields):
    """(tokens of the prompt, cached ones, ids of the answer)"""
    reply = post(server, "/v1/completions", **{"prompt": prompt or IDS, "max_tokens": 8, "temperature": 0, "ignore_eos": True,
                                               "return_token_ids": True, **fields})
    usage = reply["usage"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"], reply["choices"][0]["completion_token_ids"]


def test_completions(server):
    name = salt()
    first, second = (complete(server, cache_salt=name) for _ in range(2))
    assert first[:2] == (150, 0)
    assert second == (150, 149, first[2])  # the last token is computed, for its logits
    fork = complete(server, IDS[:100] + [299] + IDS[101:], cache_salt=name)
    assert fork[:2] == (150, 100)
    longer = complete(server, IDS + first[2] + [299], cache_salt=name)
    assert longer[:2] == (159, 157)  # the answer's last token was drawn, not computed


def test_salts_share_nothing(server):
    name = salt()
    assert complete(server, cache_salt=name)[1] == 0
    assert complete(server, cache_salt=name + "'")[1] == 0
    assert complete(server, cache_salt=name)[1] == 149


def test_chat_with_the_official_client(server):
    body = {"model": "default", "messages": ask(WORDS), "max_tokens": 6, "temperature": 0,
            "extra_body": {"cache_salt": salt(), **thinking(False)}}
    first, second = (server.client.chat.completions.create(**body) for _ in range(2))
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens == first.usage.prompt_tokens - 1
    assert second.choices[0].message.content == first.choices[0].message.content
    chunks = list(server.client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == first.usage.prompt_tokens - 1
    body["messages"] = [*ask(WORDS), {"role": "assistant", "content": first.choices[0].message.content}, *ask("And now?")]
    turn = server.client.chat.completions.create(**body)
    cached = turn.usage.prompt_tokens_details.cached_tokens
    # Up to where this turn's prompt ended, but for what the template puts before an answer.
    assert first.usage.prompt_tokens - 8 <= cached < turn.usage.prompt_tokens


def test_pictures(server):
    body = {"messages": ask("What is it?", PICTURE), "max_tokens": 6, "temperature": 0, "cache_salt": salt(), **thinking(False)}
    first, before = post(server, "/v1/chat/completions", **body), server.metrics()
    second, after = post(server, "/v1/chat/completions", **body), server.metrics()
    details = [reply["usage"]["prompt_tokens_details"] for reply in (first, second)]
    assert details[0]["image_tokens"] > 0 and details[0]["cached_tokens"] == 0
    assert details[1]["cached_tokens"] == first["usage"]["prompt_tokens"] - 1
    assert second["choices"][0]["message"] == first["choices"][0]["message"]
    for name in ("fastdeploy:encoder_items_total", "fastdeploy:encoder_cache_hits_total"):
        assert after[name] == before[name], "its rows were not needed"


def test_messages(server):
    client = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=CLIENT_TIMEOUT_S)
    body = {"model": "default", "max_tokens": 4, "messages": [{"role": "user", "content": WORDS}], "extra_body": {"cache_salt": salt()}}
    first, second = (client.messages.create(**body).usage for _ in range(2))
    assert first.cache_read_input_tokens == 0 and first.input_tokens > 60
    assert (second.cache_read_input_tokens, second.input_tokens) == (first.input_tokens - 1, 1)


def test_responses(server):
    body = {"model": "default", "input": WORDS, "max_output_tokens": 16, "extra_body": {"cache_salt": salt()}}
    first, second = (server.client.responses.create(**body).usage for _ in range(2))
    assert first.input_tokens_details.cached_tokens == 0
    assert second.input_tokens_details.cached_tokens == first.input_tokens - 1 == second.input_tokens - 1


# What is drawn depends on all tokens before, found ones too.
@pytest.mark.parametrize("wishes", [{"repetition_penalty": 1.5}, {"frequency_penalty": 1.0, "presence_penalty": 1.0},
                                    {"temperature": 1.0, "seed": 7}, {"logprobs": 3}], ids=lambda w: next(iter(w)))
def test_the_same_answer_from_cached_tokens(server, wishes):
    name = salt()
    first, second = (complete(server, cache_salt=name, max_tokens=40, **wishes) for _ in range(2))
    assert (first[1], second[1]) == (0, 149)
    assert second[2] == first[2]


def test_log_probabilities_of_the_prompt_need_all_of_it(server):
    name = salt()
    for _ in range(2):
        assert complete(server, cache_salt=name, prompt_logprobs=1)[1] == 0
    assert complete(server, cache_salt=name)[1] == 149  # but what they compute can be found


def test_off(start_server):
    server = start_server("--no-enable-prefix-caching")
    answers = [complete(server) for _ in range(3)]
    assert [cached for _, cached, _ in answers] == [0, 0, 0]
    assert answers[0] == answers[1] == answers[2]
    metrics = server.metrics()
    assert metrics["fastdeploy:free_gpu_block_num"] == metrics["fastdeploy:max_gpu_block_num"]
    assert metrics["fastdeploy:hit_token_rate"] == metrics["fastdeploy:prefix_saved_seconds_total"] == 0
    text = server.http.get("/metrics").text
    assert 'enable_prefix_caching="False"' in text


def test_metrics_and_the_step_log(start_server, tmp_path):
    log = tmp_path / "steps.jsonl"
    server = start_server("--step-log", str(log))
    before = server.metrics()
    assert before["fastdeploy:hit_token_rate"] == before["fastdeploy:hit_req_rate"] == before["fastdeploy:prefix_saved_seconds_total"] == 0
    assert complete(server)[1] == 0
    miss = server.metrics()
    assert miss["fastdeploy:hit_token_rate"] == miss["fastdeploy:prefix_saved_seconds_total"] == 0
    assert miss["fastdeploy:free_gpu_block_num"] == miss["fastdeploy:max_gpu_block_num"] - 3
    assert miss["fastdeploy:available_gpu_block_num"] == miss["fastdeploy:max_gpu_block_num"]
    assert complete(server)[1] == 149
    hit = server.metrics()
    assert hit["fastdeploy:prefix_cache_token_num_total"] == hit["fastdeploy:prefix_gpu_cache_token_num_total"] == 149
    assert hit["fastdeploy:hit_token_rate"] == hit["fastdeploy:gpu_hit_token_rate"] == pytest.approx(149 / 300)
    assert hit["fastdeploy:hit_req_rate"] == 0.5
    saved = hit["fastdeploy:prefix_saved_seconds_total"]
    assert 0 < saved <= miss["fastdeploy:request_prefill_time_seconds_sum"] * 1.5 + 0.1
    assert complete(server)[1] == 149
    assert server.metrics()["fastdeploy:prefix_saved_seconds_total"] == pytest.approx(2 * saved)
    server.wait_idle()
    server.stop()
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert [s["prefix_hit_tokens"] for s in steps if s["prefix_query_tokens"]] == [0, 149, 149]
    assert [s["prefix_query_tokens"] for s in steps if s["prefix_query_tokens"]] == [150, 150, 150]
    assert sum(s["page_copies"] for s in steps) == 2  # the begun page


# The loose bar is of tokens, not of time; docs/PERFORMANCE.md has the time.
def test_a_long_prompt_again(tmp_path):
    line = [sys.executable, str(ROOT / "bench" / "prefix.py"), "--binary", BINARY, "--model", MODEL, "--prompt-tokens", "3000",
            "--runs", "1", "--bar", "2"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=CLIENT_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"(\d+) tokens found", done.stdout)
    assert found == ["0", "2999", "3007", "2968"], done.stdout


def test_more_conversations_than_pages(start_server):
    server = start_server(*BASE_FLAGS[:-2], "--max-num-batched-tokens", "128", "--num-kv-pages", "20", "--max-model-len", "640")
    name = salt()
    prompts = [IDS[i:] + [300 + i] * 50 for i in range(12)]
    answers = [complete(server, p, cache_salt=name)[2] for p in prompts]
    again = [complete(server, p, cache_salt=name) for p in prompts]
    assert [ids for _, _, ids in again] == answers
    assert all(0 <= cached < tokens for tokens, cached, _ in again)
    server.wait_idle()


SWAP_FLAGS = ["--max-num-batched-tokens", "128", "--num-kv-pages", "20", "--max-model-len", "640"]


# More conversations than pages: what leaves the cache comes back from the host, and the answers are the same.
def test_swap_space(start_server, tmp_path):
    log = tmp_path / "steps.jsonl"
    server = start_server(*BASE_FLAGS[:-2], *SWAP_FLAGS, "--swap-space", "0.25", "--step-log", str(log))
    prompts = [[300 + (7 * i + j) % 700 for j in range(150)] for i in range(20)]  # three pages each
    answers = [complete(server, p) for p in prompts]
    assert [cached for _, cached, _ in answers] == [0] * 20
    before = server.metrics()
    assert before["fastdeploy:swap_out_block_num_total"] > 0 and before["fastdeploy:swap_in_block_num_total"] == 0
    assert before["fastdeploy:free_cpu_block_num"] == before["fastdeploy:max_cpu_block_num"] - before["fastdeploy:swap_out_block_num_total"]
    again = [complete(server, p) for p in prompts]
    assert [ids for _, _, ids in again] == [ids for _, _, ids in answers]
    # Of the begun page 21 tokens may be dearer to move than to compute.
    assert all(cached in (128, 149) for _, cached, _ in again), again
    after = server.metrics()
    assert after["fastdeploy:swap_in_block_num_total"] >= 2 * 14
    assert after["fastdeploy:prefix_cpu_cache_token_num_total"] >= 128 * 14
    gpu, cpu = (after[f"fastdeploy:prefix_{kind}_cache_token_num_total"] for kind in ("gpu", "cpu"))
    assert gpu + cpu == after["fastdeploy:prefix_cache_token_num_total"]
    assert after["fastdeploy:cpu_hit_token_rate"] == pytest.approx(cpu / (40 * 150))
    assert after["fastdeploy:prefix_saved_seconds_total"] >= after["fastdeploy:prefix_cpu_saved_seconds_total"] > 0
    text = server.http.get("/metrics").text
    assert 'swap_space="0.25"' in text
    assert server.http.get("/config-info").json()["flags"]["swap-space"] == "0.25"
    server.wait_idle()
    server.stop()
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(s["pages_out"] for s in steps) == after["fastdeploy:swap_out_block_num_total"]
    assert sum(s["pages_in"] for s in steps) == after["fastdeploy:swap_in_block_num_total"]
    assert sum(s["prefix_host_hit_tokens"] for s in steps) == cpu


def test_without_swap_space_they_are_computed_again(start_server):
    server = start_server(*BASE_FLAGS[:-2], *SWAP_FLAGS)
    prompts = [[300 + (7 * i + j) % 700 for j in range(150)] for i in range(20)]
    for prompt in prompts:
        complete(server, prompt)
    assert complete(server, prompts[0])[1] == 0
    metrics = server.metrics()
    assert metrics["fastdeploy:max_cpu_block_num"] == metrics["fastdeploy:swap_out_block_num_total"] == 0


@pytest.mark.parametrize("flags, said", [
    (["--swap-space", "-1"], "0 to 65536"),
    (["--swap-space", "60000"], "lower --swap-space to at most"),
    (["--swap-space", "1e-9"], "is less than a page of"),
    (["--swap-space", "1", "--no-enable-prefix-caching"], "the prefix cache, which is off"),
], ids=["negative", "too much", "too little", "no cache"])
def test_swap_space_that_cannot_be(flags, said):
    done = subprocess.run([BINARY, "serve", MODEL, "--port", "0", *flags], capture_output=True, text=True, timeout=CLIENT_TIMEOUT_S, check=False)
    assert done.returncode == 2
    assert said in done.stderr and "--swap-space" in done.stderr, done.stderr
