"""/metrics: the official parser reads it, every name of the table is there, and the values are those that the requests imply."""

import json
import math
import re
import threading
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import CLIENT_TIMEOUT_S, EVAL, ROOT, ask, thinking

PICTURE = EVAL / "media" / "describe-000-0.png"


def scrape(server):
    reply = httpx.get(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=CLIENT_TIMEOUT_S)
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return reply.text


def samples(server, check=True):
    """{(name, label without model_name, engine and le...): value}, of a page that was checked."""
    found = {}
    for family in text_string_to_metric_families(scrape(server)):
        if check:
            check_family(family)
        for s in family.samples:
            labels = {k: v for k, v in s.labels.items() if k not in ("model_name", "engine")}
            key = (s.name, *sorted(labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = s.value
    return found


def check_family(family):
    assert family.documentation and family.type in ("counter", "gauge", "histogram"), family
    assert all(math.isfinite(s.value) and s.value >= 0 for s in family.samples), family
    if family.type != "histogram":
        return
    groups = {}
    for s in family.samples:
        groups.setdefault(tuple(sorted((k, v) for k, v in s.labels.items() if k != "le")), []).append(s)
    for group in groups.values():
        buckets = [(float(s.labels["le"]), s.value) for s in group if s.name.endswith("_bucket")]
        (count,) = [s.value for s in group if s.name.endswith("_count")]
        (total,) = [s.value for s in group if s.name.endswith("_sum")]
        assert buckets == sorted(buckets) and len({b for b, _ in buckets}) == len(buckets)
        assert [n for _, n in buckets] == sorted(n for _, n in buckets), "cumulative counts fall"
        assert buckets[-1] == (math.inf, count)
        # What the buckets say of the sum.
        each = [(low, high, n - before) for (low, before), (high, n) in zip([(0, 0)] + buckets[:-1], buckets)]
        assert sum(low * n for low, _, n in each) <= total * (1 + 1e-9)
        if each[-1][2] == 0:
            assert total <= sum(high * n for _, high, n in each[:-1]) * (1 + 1e-9)


def names_of_the_table():
    page = (ROOT / "docs/COMPATIBILITY.md").read_text()
    table = page[page.index("<!-- begin metrics -->"):page.index("<!-- end metrics -->")]
    rows = re.findall(r"^\| `([a-z0-9_:]+)` \| (counter|gauge|histogram) \|", table, re.M)
    assert len(rows) > 90
    return dict(rows)


@pytest.mark.parametrize("names, prefixes", [(None, {"fastdeploy"}), ("vllm", {"vllm"}), ("both", {"fastdeploy", "vllm"})])
def test_the_table_is_what_is_written(start_server, names, prefixes):
    model_name = 'a "b" \\c'
    server = start_server(*(["--metrics-names", names] if names else []), "--served-model-name", model_name)
    server.http.get("/version")  # so that http_* have a series
    types = {}
    for family in text_string_to_metric_families(scrape(server)):
        check_family(family)
        for s in family.samples:
            base = re.sub(r"_(bucket|count|sum)$", "", s.name) if family.type == "histogram" else s.name
            types[base] = family.type
            if s.name.startswith("vllm:"):
                assert s.labels["model_name"] == model_name and s.labels["engine"] == "0"
            elif s.name.startswith("fastdeploy:") and not s.name.endswith("_info"):
                assert set(s.labels) <= {"le"}
    assert types == {name: kind for name, kind in names_of_the_table().items()
                     if name.partition(":")[0] in prefixes or ":" not in name}


def test_every_value_follows_from_the_requests(start_server):
    server = start_server("--metrics-names", "both", "--max-model-len", "2048")
    begin = time.time()
    requests, prompt, generated, choices, longest, limits = 0, 0, 0, 0, 0, 0
    client_seconds = 0.0
    for n, max_tokens, stream in ((1, 8, False), (1, 1, False), (3, 5, False), (1, 30, True), (2, 12, True), (1, 7, False)):
        asked_at = time.monotonic()
        body = {"prompt": f"Tell me about {max_tokens} horses", "n": n, "max_tokens": max_tokens, "ignore_eos": True, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
            with server.http.stream("POST", "/v1/completions", json=body) as reply:
                events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
            (usage,) = [event["usage"] for event in events if event.get("usage")]
        else:
            usage = server.http.post("/v1/completions", json=body).json()["usage"]
        client_seconds += n * (time.monotonic() - asked_at)
        assert usage["completion_tokens"] == n * max_tokens
        requests, choices, longest, limits = requests + 1, choices + n, longest + max_tokens, limits + n * max_tokens
        prompt += n * usage["prompt_tokens"]
        generated += usage["completion_tokens"]
    server.wait_idle(10)
    got = samples(server)

    def value(name, *labels):
        return got[(name, *labels)]

    assert value("fastdeploy:requests_number_total") == requests
    assert value("fastdeploy:request_success_total") == choices
    assert value("vllm:request_success_total", ("finished_reason", "length")) == choices
    for reason in ("stop", "abort", "error"):
        assert value("vllm:request_success_total", ("finished_reason", reason)) == 0
    for prefix in ("fastdeploy:", "vllm:"):
        assert value(prefix + "prompt_tokens_total") == prompt
        assert value(prefix + "generation_tokens_total") == generated
        for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
                     "request_inference_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
                     "request_prompt_tokens", "request_generation_tokens", "request_params_max_tokens"):
            assert value(f"{prefix}{name}_count") == choices, name
        assert value(prefix + "request_prompt_tokens_sum") == prompt
        assert value(prefix + "request_generation_tokens_sum") == generated
        assert value(prefix + "request_params_max_tokens_sum") == limits
        assert value(prefix + "time_per_output_token_seconds_count") == generated - choices
        assert value(prefix + "num_requests_running") == value(prefix + "num_requests_waiting") == 0
        first, e2e, queue, inference, prefill, decode = (value(f"{prefix}{name}_sum") for name in (
            "time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
            "request_inference_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds"))
        assert 0 < first <= e2e <= client_seconds
        assert inference == pytest.approx(prefill + decode) and queue + inference <= e2e
        assert value(prefix + "time_per_output_token_seconds_sum") == pytest.approx(decode)
    assert value("vllm:inter_token_latency_seconds_sum") == value("vllm:time_per_output_token_seconds_sum")
    assert value("vllm:request_params_n_sum") == choices and value("vllm:request_params_n_count") == requests
    assert value("vllm:request_max_num_generation_tokens_sum") == longest
    cached = value("vllm:prefix_cache_hits_total")  # choices of one prompt begin alike
    assert 0 <= cached < prompt and value("fastdeploy:prefix_cache_token_num_total") == cached
    assert value("vllm:request_prefill_kv_computed_tokens_sum") == prompt - cached
    assert value("vllm:request_time_per_output_token_seconds_count") == choices - 1  # one had a single token
    assert value("fastdeploy:request_token_ratio_count") == choices
    assert value("vllm:kv_cache_usage_perc") == 0 and value("fastdeploy:available_gpu_resource") == 1
    # Every prompt token that was not found once, and every drawn token but the last of each sequence.
    assert value("vllm:iteration_tokens_total_sum") == prompt - cached + generated - choices
    labels = (("method", "POST"), ("path", "/v1/completions"))
    assert value("http_requests_total", *labels, ("status_code", "200")) == requests
    assert value("http_request_duration_seconds_count", *labels) == requests
    assert abs(value("process_start_time_seconds") - begin) < 120
    assert value("process_resident_memory_bytes") > 10 << 20 and value("process_virtual_memory_bytes") > 10 << 20
    assert value("process_cpu_seconds_total") > 0
    assert 3 < value("process_open_fds") < value("process_max_fds")


def test_while_they_run_and_when_the_client_leaves(start_server):
    server = start_server("--metrics-names", "both", "--max-num-seqs", "1", "--max-model-len", "4096")
    body = {"prompt": "a", "ignore_eos": True, "max_tokens": 4000, "stream": True}
    with server.http.stream("POST", "/v1/completions", json=body) as stream:
        chunks = stream.iter_raw()  # kept: its end would close the connection
        next(chunks)
        got = samples(server)
        assert got[("fastdeploy:num_requests_running",)] == got[("fastdeploy:batch_size",)] == got[("vllm:num_requests_running",)] == 1
        assert got[("fastdeploy:available_batch_size",)] == 0 and got[("fastdeploy:max_batch_size",)] == 1
        assert got[("vllm:kv_cache_usage_perc",)] == got[("fastdeploy:gpu_cache_usage_perc",)] > 0
        assert got[("fastdeploy:free_gpu_block_num",)] < got[("fastdeploy:max_gpu_block_num",)]
        assert got[("fastdeploy:time_to_first_token_seconds_count",)] == 1 and got[("fastdeploy:e2e_request_latency_seconds_count",)] == 0
        assert got[("fastdeploy:prompt_tokens_total",)] >= 1  # not only when it ends
        assert got[("fastdeploy:first_token_latency",)] == pytest.approx(got[("fastdeploy:time_to_first_token_seconds_sum",)])
        second = threading.Thread(target=lambda: server.http.post("/v1/completions", json={"prompt": "b", "max_tokens": 1}))
        second.start()
        waiting = server.wait_for(lambda m: m["fastdeploy:num_requests_waiting"] == 1, 30)
        assert waiting["fastdeploy:num_requests_enqueued"] == 1 and waiting["fastdeploy:num_requests_preempted"] == 0
    second.join()
    server.wait_for(lambda m: m["fastdeploy:request_aborted_total"] == 1, 30)
    server.wait_idle(10)
    got = samples(server)
    assert got[("vllm:request_success_total", ("finished_reason", "abort"))] == 1
    assert got[("fastdeploy:request_success_total",)] == 1
    assert got[("http_requests_total", ("method", "POST"), ("path", "/v1/completions"), ("status_code", "499"))] == 1


def test_pictures_and_stops(start_server):
    server = start_server("--metrics-names", "both")
    for turn in range(2):  # of different salts: else the second would not need the picture
        reply = server.client.chat.completions.create(model="default", messages=ask("What is this?", PICTURE), temperature=0,
                                                      extra_body={**thinking(False), "cache_salt": f"turn {turn}"}, max_tokens=512)
        assert reply.choices[0].finish_reason == "stop"
    got = samples(server)
    assert got[("vllm:request_success_total", ("finished_reason", "stop"))] == 2
    assert got[("fastdeploy:mm_images_prepared_total",)] == got[("fastdeploy:mm_image_prepare_time_seconds_count",)] == 1
    assert got[("vllm:mm_cache_queries_total",)] == 2 and got[("vllm:mm_cache_hits_total",)] == 1
    assert got[("fastdeploy:encoder_cache_hits_total",)] >= 1


def test_no_label_from_a_client(start_server):
    server = start_server("--metrics-names", "both")
    for path in ("/nowhere", "/v1/x%0d%0aevil", '/x{y="1"} 2', "/v1/models/evil-model", "/v1/chat/completions/evil", "/metrics/evil"):
        server.http.get(path)
    for method in ("BREW", "EVIL", "TRACE", "DELETE"):
        server.http.request(method, "/v1/completions")
    server.http.post("/v1/completions", json={"prompt": "a", "model": "evil", "user": "evil", "request_id": "evil", "max_tokens": 1})
    text = scrape(server)
    assert "evil" not in text.lower() and "BREW" not in text
    routes = {r["path"] for r in server.http.get("/load").json()["routes"]}
    for family in text_string_to_metric_families(text):
        for s in family.samples:
            assert set(s.labels) <= {"method", "path", "status_code", "le", "model_name", "engine", "finished_reason"} or s.name.endswith("_info")
            assert s.labels.get("path", "other") in routes | {"other"}
            assert s.labels.get("method", "other") in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}


def test_the_settings_of_the_cache(start_server):
    server = start_server("--metrics-names", "both", "--gpu-memory-utilization", "0.8")
    info = {}
    for family in text_string_to_metric_families(scrape(server)):
        if family.name.endswith("cache_config_info"):
            (sample,) = family.samples
            assert sample.value == 1
            info[family.name.partition(":")[0]] = sample.labels
    pages = str(int(server.metrics()["fastdeploy:max_gpu_block_num"]))
    for labels in info.values():
        assert labels["block_size"] == "64" and labels["cache_dtype"] == "bfloat16"
        assert labels["gpu_memory_utilization"] == "0.8" and labels["enable_prefix_caching"] == "True"
    assert info["fastdeploy"]["total_block_num"] == info["vllm"]["num_gpu_blocks"] == pages
