"""The command line of `serve`: the guide's launch command, refusals, wrong values, broken checkpoints."""

import json
import os
import re
import shutil
import subprocess

import pytest

from conftest import BINARY, MODEL, ROOT, ask, free_port, thinking


def serve(*flags, model=("--model", MODEL), timeout=60):
    """For commands that must not start a server."""
    return subprocess.run([BINARY, "serve", *model, *flags], capture_output=True, text=True, timeout=timeout, cwd=ROOT)


def test_launch_command_of_the_guide(start_server):
    metrics_port = free_port()
    server = start_server("--engine-worker-queue-port", str(free_port()), "--tensor-parallel-size", "1", "--max-model-len", "4096",
                          "--max-num-seqs", "16", "--limit-mm-per-prompt", '{"image": 100, "video": 100}', "--reasoning-parser",
                          "ernie-45-vl", "--gpu-memory-utilization", "0.85", "--max-num-batched-tokens", "384",
                          metrics_port=metrics_port)
    reply = server.client.chat.completions.create(model="default", messages=ask("Compute 45 + 11."), temperature=0,
                                                  extra_body=thinking(False))
    assert reply.choices[0].message.content == "56"
    assert server.client.models.list().data[0].max_model_len == 4096
    assert server.metrics()["fastdeploy:max_batch_size"] == 16
    log = server.log_text()
    assert "engine-worker-queue-port" in log  # accepted, and it is said that it opens nothing
    assert f"127.0.0.1:{server.port}" in log and str(metrics_port) in log
    assert "memory" in log and "weights 2" in log and "4096 tokens" in log
    assert '"level":"info"' in log  # one JSON object a line where there is no terminal
    assert all(json.loads(line)["message"] for line in log.splitlines())


@pytest.mark.parametrize("flags, words", [
    (["--tensor-parallel-size", "8"], ["--tensor-parallel-size 8", "still to come"]),
    (["-tp", "2"], ["--tensor-parallel-size 2", "still to come"]),
    (["--quantization", '{"dense_quant_type": "wint8"}'], ["--quantization", "quantization must name a kind", "mix_quant"]),
    (["--quantization", '{"quantization": "mix_quant", "moe_quant_type": "w4a8"}'], ["moe_quant_type w4a8 is still to come", "supported now: wint8, wint4"]),
    (["--quantization", "wint2"], ["--quantization wint2", "wint4"]),
    (["--quantize-lm-head"], ["--quantize-lm-head needs a value", "none|wint8|wint4"]),
    (["--quantize-lm-head", "--port", "0"], ["--quantize-lm-head --port: must be one of none, wint8, wint4"]),
    (["--quantize-lm-head", "wint8", "--quantization", '{"quantization": "wint8", "lm_head": null}'],
     ["lm_head null in --quantization", "--quantize-lm-head wint8", "contradict"]),
    (["--quantization", '{"quantization": "wint4", "group_size": 48}'], ["--quantization", "multiple of 32"]),
    (["--speculative-config", '{"method": "mtp"}'], ["--speculative-config", "still to come"]),
    (["--splitwise-role", "prefill"], ["--splitwise-role prefill", "still to come"]),
    (["--tool-parser-plugin", "mine.py"], ["--tool-parser-plugin", "Python"]),
    (["--guided-decoding-backend", "xgrammar"], ["--guided-decoding-backend xgrammar", "still to come"]),
    (["--data-parallel-size=2"], ["--data-parallel-size 2", "still to come"]),
    (["--max-num-seq", "16"], ["unknown flag --max-num-seq", "did you mean --max-num-seqs?"]),
    (["--prot", "16"], ["unknown flag --prot", "did you mean --port?"]),
    (["--xyzzy-plugh"], ["unknown flag --xyzzy-plugh"]),
    (["-x"], ["unknown flag -x"]),
    (["--port", "99999"], ["--port 99999", "65535", "--port 8180"]),
    (["--port", "-1"], ["--port -1", "65535"]),
    (["--port", "http"], ["--port http", "65535"]),
    (["--port"], ["--port", "needs a value"]),
    (["--max-num-seqs", "0"], ["--max-num-seqs 0", "from 1 to 4096", "--max-num-seqs 16"]),
    (["--max-num-seqs", "4097"], ["--max-num-seqs 4097", "from 1 to 4096"]),
    (["--target-step-ms", "-1"], ["--target-step-ms -1", "from 0 to 60000"]),
    (["--max-num-partial-prefills", "0"], ["--max-num-partial-prefills 0", "from 1"]),
    (["--max-num-partial-prefills", "2", "--max-long-partial-prefills", "3"],
     ["--max-long-partial-prefills 3", "--max-num-partial-prefills 2", "at most 2"]),
    (["--max-model-len", "2048", "--long-prefill-token-threshold", "2048"],
     ["--long-prefill-token-threshold 2048", "less than --max-model-len 2048", "for example 81"]),
    (["--max-model-len", "8"], ["--max-model-len 8", "from 16"]),
    (["--max-num-batched-tokens", "0"], ["--max-num-batched-tokens 0", "from 1"]),
    (["--encoder-cache-tokens", "-2"], ["--encoder-cache-tokens -2", "from -1"]),
    (["--max-encoder-batch-tokens", "0"], ["--max-encoder-batch-tokens 0", "from 1"]),
    (["--gpu-memory-utilization", "1.5"], ["--gpu-memory-utilization 1.5", "at most 1", "0.85"]),
    (["--gpu-memory-utilization", "0"], ["--gpu-memory-utilization 0", "above 0"]),
    (["--dtype", "fp16"], ["--dtype fp16", "bfloat16, float32"]),
    (["--kv-cache-dtype", "fp16"], ["--kv-cache-dtype fp16", "auto, bf16, fp8, int8"]),
    (["--kv-cache-dtype", "bf16", "--dtype", "float32"], ["--kv-cache-dtype", "--dtype float32", "fp8 or int8"]),
    (["--load-format", "gguf"], ["--load-format gguf", "safetensors"]),
    (["--limit-mm-per-prompt", "{image: 1}"], ["--limit-mm-per-prompt", '{"image": 100'] ),
    (["--limit-mm-per-prompt", '{"picture": 1}'], ["--limit-mm-per-prompt", "picture", "image"]),
    (["--limit-mm-per-prompt", '{"image": -1}'], ["--limit-mm-per-prompt", "image"]),
    (["--allowed-media-domains", "https://a.com"], ["--allowed-media-domains https://a.com", "*.example.com"]),
    (["--allowed-local-media-path", "/nothing/here"], ["--allowed-local-media-path /nothing/here", "folder that exists"]),
    (["--allowed-local-media-path", "/"], ["--allowed-local-media-path /", "every file"]),
    (["--media-max-redirects", "21"], ["--media-max-redirects 21", "from 0 to 20"]),
    (["--media-fetch-timeout", "0"], ["--media-fetch-timeout 0", "0.01"]),
    (["--threads", "1025"], ["--threads 1025", "from 0 to 1024"]),
    (["--cpu-affinity", "0-"], ["--cpu-affinity 0-: '0-'", "0-7,16", "auto and none"]),
    (["--cpu-affinity", "all"], ["--cpu-affinity all: 'all'", "0-7,16"]),
    (["--cpu-affinity", "0,60000"], ["--cpu-affinity 0,60000: CPU 60000 is not among", "may use: "]),
    (["--cpu-isa", "sse4"], ["--cpu-isa sse4: no such level", "auto, avx2"]),
    (["--header-timeout", "0"], ["--header-timeout 0", "0.01", "86400"]),
    (["one", "word"], ["unexpected word 'one'"]),
])
def test_wrong_flags(flags, words):
    result = serve(*flags)
    assert result.returncode == 2, result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_no_model():
    result = serve(model=())
    assert result.returncode == 2
    assert "--model" in result.stderr


def test_model_as_first_word_and_underscores(start_server):
    server = start_server("--max_model_len", "512", "--max_num_seqs=2")
    assert server.client.models.list().data[0].max_model_len == 512


@pytest.mark.parametrize("flags, words", [
    (["--max-model-len", "100000"], ["--max-model-len 100000", "8192"]),
    (["--quantization", '{"quantization": "wint8", "layers": {"*.nothing": null}}'], ["the pattern *.nothing matches no layer", "*.down_proj"]),
    (["--num-kv-pages", "4000000000"], ["--num-kv-pages", "memory"]),
    (["--reasoning-parser", "qwen9"], ["--reasoning-parser", "qwen9", "ernie-45-vl", "did you mean qwen3?"]),
    (["--tool-call-parser", "herms"], ["--tool-call-parser", "herms", "ernie-x1", "did you mean hermes?"]),
    (["--host", "999.1.1.1"], ["--host", "999.1.1.1"]),
    (["--device", "gpu"], ["--device gpu", "cuda:N", "--device cuda:0"]),
    (["--device", "cuda:-1"], ["--device cuda:-1", "cuda:N"]),
    (["--device", "cuda:4096"], ["--device cuda:4096", "cuda"]),  # not built, no device or not so many: each says so
])
def test_values_that_the_model_or_machine_refuses(flags, words):
    result = serve("--port", "0", *flags)
    assert result.returncode in (1, 2), result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("fastdeploy serve:")]
    assert len(errors) == 1, result.stderr
    for word in words:
        assert word in errors[0]


def test_public_address_warns(start_server):
    server = start_server("--host", "0.0.0.0")
    assert '"level":"warning"' in server.log_text()
    assert "--api-key" in server.log_text()


def copy_of_model(tmp_path):
    target = tmp_path / "model"
    shutil.copytree(MODEL, target)
    return target


def fails(model, *words):
    result = serve("--port", "0", model=("--model", str(model)))
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("fastdeploy serve:")]
    assert len(errors) == 1, result.stderr
    for word in words:
        assert word in errors[0], errors[0]


def test_no_such_directory(tmp_path):
    fails(tmp_path / "nothing", "no such directory", "nothing")
    fails("baidu/ERNIE-4.5-VL-28B-A3B-PT", "no such directory", "downloaded")
    fails(os.path.join(MODEL, "config.json"), "config.json", "no directory")
    fails(tmp_path, "config.json")


def test_missing_tokenizer(tmp_path):
    model = copy_of_model(tmp_path)
    (model / "tokenizer.model").unlink()
    fails(model, "tokenizer.model", "tokenizer.json")


def test_missing_weights(tmp_path):
    model = copy_of_model(tmp_path)
    (model / "model-00002-of-00003.safetensors").unlink()
    fails(model, "model-00002-of-00003.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 8, 1000, 11_000_000])
def test_truncated_weights(tmp_path, keep):
    model = copy_of_model(tmp_path)
    with open(model / "model-00001-of-00003.safetensors", "r+b") as f:
        f.truncate(keep)
    fails(model, "model-00001-of-00003.safetensors")


def test_hostile_header(tmp_path):
    model = copy_of_model(tmp_path)
    with open(model / "model-00001-of-00003.safetensors", "r+b") as f:
        f.write((2**64 - 8).to_bytes(8, "little"))
    fails(model, "model-00001-of-00003.safetensors")


def test_config_that_does_not_fit_the_weights(tmp_path):
    model = copy_of_model(tmp_path)
    config = json.loads((model / "config.json").read_text())
    target = config.get("text_config", config)
    target["intermediate_size"] = 512
    (model / "config.json").write_text(json.dumps(config))
    fails(model, "mlp", "768", "512")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": "gpt9"}'])
def test_broken_config(tmp_path, text):
    model = copy_of_model(tmp_path)
    (model / "config.json").write_text(text)
    fails(model, "config.json")


def test_dummy_weights_need_no_files(start_server, tmp_path):
    model = copy_of_model(tmp_path)
    for file in model.glob("*.safetensors*"):
        file.unlink()
    server = start_server("--load-format", "dummy", model=model)
    reply = server.client.chat.completions.create(model="default", messages=ask("Compute 45 + 11."), max_tokens=4)
    assert reply.usage.completion_tokens >= 1


def test_float32(start_server):
    server = start_server("--dtype", "float32")
    reply = server.client.chat.completions.create(model="default", messages=ask("Compute 45 + 11."), temperature=0,
                                                  extra_body=thinking(False))
    assert reply.choices[0].message.content == "56"


@pytest.mark.parametrize("kv, name", [("fp8", "float8_e4m3"), ("int8", "int8"), ("bf16", "bfloat16")])
def test_kv_cache_types(start_server, kv, name):
    server = start_server("--kv-cache-dtype", kv)
    for _ in range(2):  # the second time from the pages that are there
        reply = server.client.chat.completions.create(model="default", messages=ask("Compute 45 + 11."), temperature=0,
                                                      extra_body=thinking(False))
        assert reply.choices[0].message.content == "56"
    assert f"key/value cache: {name}, " in server.log_text()
    assert f'cache_dtype="{name}"' in server.http.get("/metrics").text


def test_kv_cache_of_bytes_takes_half(start_server):
    def bytes_a_token(kv):
        log = start_server("--kv-cache-dtype", kv).log_text()
        return int(re.search(r"key/value cache: \w+, (\d+) bytes a token", log).group(1))

    plain = bytes_a_token("auto")
    for kv in ("fp8", "int8"):
        assert bytes_a_token(kv) == plain / 2 + plain / 2 * 2 / 64  # a byte an element, a scale of two for each 64 of a head


def test_one_thread_answers_the_same(start_server):
    server = start_server("--threads", "1", "--max-num-batched-tokens", "1", "--max-num-seqs", "1")
    reply = server.client.chat.completions.create(model="default", messages=ask("Compute 45 + 11."), temperature=0,
                                                  extra_body=thinking(False))
    assert reply.choices[0].message.content == "56"


def test_threads_are_pinned_to_the_list(start_server):
    cpu = max(os.sched_getaffinity(0))
    server = start_server("--threads", "1", "--cpu-affinity", str(cpu), "--cpu-isa", "avx2")
    reply = server.client.chat.completions.create(model="default", messages=ask("Compute 45 + 11."), temperature=0,
                                                  extra_body=thinking(False))
    assert reply.choices[0].message.content == "56"
    assert f"1 thread on CPU {cpu}" in server.log_text()
    masks = [os.sched_getaffinity(int(task)) for task in os.listdir(f"/proc/{server.process.pid}/task")]
    assert {cpu} in masks  # the engine's thread
    assert os.sched_getaffinity(server.process.pid) == os.sched_getaffinity(0)  # the sockets' is left alone


def test_a_step_is_measured_at_start(start_server):
    server = start_server("--max-num-seqs", "512", "--max-model-len", "2048", "--target-step-ms", "1",
                          "--max-num-partial-prefills", "4", "--max-long-partial-prefills", "2",
                          "--long-prefill-token-threshold", "100")
    reply = server.client.chat.completions.create(model="default", messages=ask("Compute 45 + 11."), temperature=0,
                                                  extra_body=thinking(False))
    assert reply.choices[0].message.content == "56"
    assert "for steps of 1 ms (--target-step-ms) prompts get" in server.log_text()


def test_an_explicit_budget_is_not_lowered(start_server):
    server = start_server("--max-num-batched-tokens", "512")
    assert "--target-step-ms" not in server.log_text()
