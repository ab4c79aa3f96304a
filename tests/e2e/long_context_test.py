"""Long contexts: rope scaling by flag, and a prompt of thousands of tokens through the whole server."""

import json
import pathlib
import random
import subprocess
import sys

import pytest

from conftest import BINARY, MODEL, ROOT, SANITIZED

YARN = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 8192}
IDS = [300 + i * 37 % 700 for i in range(600)]


def first_logprobs(server):
    """Of the token after a prompt: {token: log-probability} of the likeliest."""
    reply = server.http.post("/v1/completions", json={"prompt": IDS, "max_tokens": 1, "temperature": 0, "logprobs": 5})
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["logprobs"]["top_logprobs"][0]


def test_rope_scaling_reaches_further_and_changes_the_answer(start_server):
    flags = ("--max-num-seqs", "2")
    plain = start_server(*flags)
    yarn = start_server(*flags, "--rope-scaling", json.dumps(YARN))
    assert plain.client.models.list().data[0].max_model_len == 8192
    assert yarn.client.models.list().data[0].max_model_len == 32768
    assert "rope scaling: yarn, factor 4" in yarn.log_text()
    assert "rope scaling" not in plain.log_text()
    as_stored, scaled = first_logprobs(plain), first_logprobs(yarn)
    assert as_stored != scaled
    # A prompt beyond the length that the model was made for.
    long = yarn.http.post("/v1/completions", json={"prompt": IDS * 15, "max_tokens": 1, "temperature": 0})
    assert long.status_code == 200 and long.json()["usage"]["prompt_tokens"] == 9000, long.text
    refused = plain.http.post("/v1/completions", json={"prompt": IDS * 15, "max_tokens": 1, "temperature": 0})
    assert refused.status_code == 400 and "8192" in refused.text

    default = start_server(*flags, "--rope-scaling", '{"rope_type": "default"}', "--rope-theta", "500000")
    assert first_logprobs(default) == as_stored
    theta = start_server(*flags, "--rope-theta", "10000")
    assert first_logprobs(theta) != as_stored


def test_dynamic_scaling_follows_the_length_served(start_server):
    """Within the length that the model was made for nothing is scaled."""
    flags = ("--max-num-seqs", "2", "--rope-scaling", '{"rope_type": "dynamic", "factor": 2}')
    plain = start_server("--max-num-seqs", "2")
    within = start_server(*flags, "--max-model-len", "8192")
    beyond = start_server(*flags)
    assert beyond.client.models.list().data[0].max_model_len == 16384
    assert "for sequences of 16384 tokens" in beyond.log_text()
    assert first_logprobs(within) == first_logprobs(plain)
    assert first_logprobs(beyond) != first_logprobs(plain)


@pytest.mark.parametrize("flags, code, words", [
    (["--rope-scaling", "yarn"], 2, ["--rope-scaling yarn", "JSON", '--rope-scaling \'{"rope_type": "yarn"']),
    (["--rope-scaling", '{"rope_type": "ntk"}'], 2, ["--rope-scaling rope_type is", "ntk", "default, linear, dynamic, yarn, longrope, llama3"]),
    (["--rope-scaling", '{"rope_type": "linear"}'], 2, ["--rope-scaling factor is missing", "a number from 1"]),
    (["--rope-theta", "0"], 2, ["--rope-theta 0", "a number from 1", "10000"]),
    (["--rope-scaling", json.dumps(YARN), "--max-model-len", "32769"], 2,
     ["--max-model-len 32769", "32768 tokens (rope_scaling yarn, 4 times 8192 of --rope-scaling)"]),
])
def test_wrong_rope_flags(flags, code, words):
    result = subprocess.run([BINARY, "serve", "--model", MODEL, "--port", "0", *flags], capture_output=True, text=True, timeout=60, cwd=ROOT)
    errors = [line for line in result.stderr.splitlines() if line.startswith("fastdeploy serve:")]
    assert result.returncode == code and len(errors) == 1, result.stderr
    for word in words:
        assert word in errors[0]


def test_inspect_names_the_scaling(tmp_path):
    config = json.loads((ROOT / "tests/golden/models/ernie4_5/config.json").read_text())
    config["rope_scaling"] = {"type": "linear", "factor": 8.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(ROOT / "tests/golden/models/ernie4_5/model.safetensors")
    text = subprocess.run([BINARY, "inspect", str(tmp_path)], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "context    8192 tokens, rope scaling linear of factor 8" in text
    listed = json.loads(subprocess.run([BINARY, "inspect", str(tmp_path), "--json"], capture_output=True, text=True, timeout=60, check=True).stdout)
    assert (listed["config"]["rope_type"], listed["config"]["rope_factor"], listed["config"]["context_tokens"]) == ("linear", 8, 8192)


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="its speed")
def test_131072_tokens(start_server, tmp_path):
    """Prompt and answer fill the longest context: through HTTP, pages, positions and attention of a model of one small layer."""
    for path in pathlib.Path(MODEL).iterdir():
        if path.suffix != ".safetensors" and path.name not in ("config.json", "generation_config.json"):
            (tmp_path / path.name).symlink_to(path)
    config = json.loads((ROOT / "bench/configs/ernie-4.5-0.3b/config.json").read_text())
    config |= {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
               "head_dim": 64, "vocab_size": 2624}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rng = random.Random(3)
    prompt = [rng.randrange(300, 1500) for _ in range(131072 - 8)]

    def answer(server, ids):
        """What the server says, whatever the prefix cache has: (ids, log-probabilities), cached tokens."""
        reply = server.http.post("/v1/completions", timeout=900, json={"prompt": ids, "max_tokens": 8, "temperature": 0, "ignore_eos": True,
                                                                       "return_token_ids": True, "logprobs": 3})
        assert reply.status_code == 200, reply.text[:500]
        body = reply.json()
        choice = body["choices"][0]
        assert choice["finish_reason"] == "length" and body["usage"]["total_tokens"] == len(ids) + 8
        return (choice["completion_token_ids"], choice["logprobs"]["token_logprobs"]), body["usage"]["prompt_tokens_details"]["cached_tokens"]

    flags = ("--load-format", "dummy", "--max-num-seqs", "2")
    server = start_server(*flags, model=tmp_path)
    assert server.client.models.list().data[0].max_model_len == 131072
    first, cached = answer(server, prompt)
    assert cached == 0 and len(first[0]) == 8
    again, cached = answer(server, prompt)
    assert again == first and cached == 131063
    other, cached = answer(server, prompt[:-5] + [7, 8, 9, 10, 11])
    assert other != first and cached == 131059
    for ids, word in ((prompt + prompt[:8], "131072"), (prompt * 2, "262128")):
        refused = server.http.post("/v1/completions", json={"prompt": ids, "max_tokens": 1})
        assert refused.status_code == 400 and word in refused.text
    # In other chunks, by one thread.
    chunked = start_server(*flags, "--max-num-batched-tokens", "384", "--threads", "1", "--no-enable-prefix-caching", model=tmp_path)
    assert answer(chunked, prompt) == (first, 0)


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="its memory and its speed say nothing")
def test_a_long_prompt_flows_within_the_planned_memory():
    """bench/long_context.py with fewer layers and tokens: memory is the plan's, chunks keep to the budget, others are answered meanwhile."""
    # Where steps are paced by time. The bar of 3 is for a machine of one's own; tests share theirs.
    paced = "--target-step-ms" in subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    result = subprocess.run([sys.executable, str(ROOT / "bench/long_context.py"), "--binary", BINARY, "--layers", "2", "--prompt-tokens", "16384",
                             "--every", "0.5", "--short-output-tokens", "64", "--bar", "4" if paced else "0", "--json", "--",
                             *(["--target-step-ms", "100"] if paced else ["--max-num-batched-tokens", "256"])], capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    seen = json.loads(result.stdout)
    assert seen["problems"] == [] and seen["largest_step_tokens"] <= (2048 if paced else 256) and seen["steps"] >= 16, seen
