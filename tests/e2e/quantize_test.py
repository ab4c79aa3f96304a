"""fastdeploy quantize: the command, what it writes, what it refuses, and what loading the result takes."""

import json
import math
import resource
import shutil
import signal
import struct
import subprocess
import time

import pytest

from conftest import BINARY, EVAL, MODEL, ROOT

QUESTIONS = ("Compute 45 + 11.", "Tell a story about Li Wei in Paris, a orange green and a cactus.")


def command(*args, **keywords):
    return subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=120, cwd=ROOT, stdin=subprocess.DEVNULL,
                          **keywords)


def answers(model, *flags):
    results = [command("run", model, q, "--no-thinking", "--temperature", "0", "--max-tokens", "40", *flags) for q in QUESTIONS]
    for result in results:
        assert result.returncode == 0, result.stderr
    return [r.stdout for r in results]


@pytest.mark.parametrize("kind, head", [("wint8", ()), ("wint4", ()), ('{"quantization": "wint4", "group_size": 32}', ()),
                                        ("wint4", ("--quantize-lm-head", "wint4")), ("wint8", ("--quantize-lm-head", "wint8"))])
def test_packed_model_answers_as_the_one_quantised_while_loading(tmp_path, kind, head):
    out = tmp_path / "packed"
    flags = ("--quantization", kind, *head)
    result = command("quantize", MODEL, out, *flags)
    assert result.returncode == 0, result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["packed"]
    assert answers(out) == answers(out, *flags) == answers(MODEL, *flags)
    assert json.loads((out / "config.json").read_text())["quantization_config"].get("lm_head") == (head[1] if head else None)
    listing = json.loads(command("inspect", out, "--json").stdout)
    assert listing["quantization"].endswith(" ".join((*head, "in panels"))) and json.loads(command("inspect", MODEL, "--json").stdout)["quantization"] == "none"
    assert listing["bytes"] < 0.8 * json.loads(command("inspect", MODEL, "--json").stdout)["bytes"]
    assert "quantised  " in command("inspect", out).stdout
    other = command("run", out, QUESTIONS[0], "--quantization", "wint8" if kind != "wint8" else "wint4")
    assert other.returncode == 1 and "is packed as" in other.stderr and "--quantization wint" in other.stderr


def test_packed_without_quantisation(tmp_path):
    out = tmp_path / "packed"
    result = command("quantize", MODEL, out, "--quantization", "none")
    assert result.returncode == 0 and "none (weights as stored)" in result.stderr, result.stderr
    picture = ("--image", str(EVAL / "media" / "describe-000-0.png"))
    for flags in ((), ("--dtype", "float32"), picture):
        assert answers(out, *flags) == answers(MODEL, *flags)
    listing = json.loads(command("inspect", out, "--json").stdout)
    assert listing["quantization"] == "none (weights as stored) in panels"
    assert not [t["name"] for t in listing["tensors"] if t["name"].endswith("_proj.weight") and ".mtp_block." not in t["name"]]
    other = command("run", out, QUESTIONS[0], "--quantization", "wint8")
    assert other.returncode == 1 and "is packed as none" in other.stderr
    again = command("quantize", out, tmp_path / "again", "--quantization", "wint8")
    assert again.returncode == 1 and "packed as none (weights as stored)" in again.stderr
    # Whatever is cut off or edited is told before a weight is read.
    weights = out / "model.safetensors"
    whole = weights.read_bytes()
    for changed, words in ((whole[:-5000], "truncated"), (whole.replace(b".panels", b".panelS", 1), ".panels is missing"),
                           (whole[:2000], "model.safetensors"), (whole.replace(b'"BF16"', b'"F16" ', 1), "F16")):
        weights.write_bytes(changed)
        broken = command("run", out, QUESTIONS[0])
        assert broken.returncode == 1 and words in broken.stderr and len(broken.stderr.splitlines()) == 1, broken.stderr
    weights.write_bytes(whole)
    config = json.loads((out / "config.json").read_text())
    config["quantization_config"]["format_version"] = 3
    (out / "config.json").write_text(json.dumps(config))
    assert "format_version is 3" in command("run", out, QUESTIONS[0]).stderr


@pytest.mark.slow  # what a sanitizer takes is counted too
def test_a_packed_folder_is_mapped_not_copied(tmp_path, start_server):
    source, packed = tmp_path / "source", tmp_path / "packed"
    write_synthetic(source)
    assert command("quantize", source, packed, "--quantization", "none").returncode == 0
    server = start_server("--max-model-len", "2048", "--max-num-seqs", "1", model=packed)
    with open(f"/proc/{server.process.pid}/status") as f:
        resident = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in f if line.startswith("Rss")}
    assert resident["RssFile"] > 700e6 and resident["RssAnon"] < 150e6  # pages of the file, which other servers share


def test_flags_and_errors(tmp_path):
    named = command("quantize", "--model", MODEL, "--output", tmp_path / "named", "--quantization", "wint8", "--threads", "1")
    assert named.returncode == 0, named.stderr
    (tmp_path / "file").write_text("x")
    before = sorted(p.name for p in tmp_path.iterdir())
    for args, code, words in [
        ((), 2, ["--model"]),
        ((MODEL,), 2, ["--output"]),
        ((MODEL, tmp_path / "out"), 2, ["--quantization wint8", "--quantization none"]),
        ((MODEL, tmp_path / "out", "--quantization", "wint2"), 2, ["wint2", "wint8, wint4"]),
        ((MODEL, tmp_path / "out", "--quantize-lm-head"), 2, ["--quantize-lm-head needs a value", "none|wint8|wint4"]),
        ((MODEL, tmp_path / "out", "--quantize-lm-head", "int8"), 2, ["--quantize-lm-head int8", "none, wint8, wint4"]),
        ((MODEL, tmp_path / "out", "--quantization", '{"quantization": "wint8", "lm_head": "wint4"}', "--quantize-lm-head", "wint8"), 2,
         ["lm_head wint4 in --quantization", "--quantize-lm-head wint8", "contradict"]),
        ((MODEL, tmp_path / "out", "more", "--quantization", "wint8"), 2, ["'more'"]),
        (("no-such-model", tmp_path / "out", "--quantization", "wint8"), 1, ["no such directory"]),
        ((MODEL, tmp_path / "named", "--quantization", "wint8"), 1, ["is no empty folder"]),
        ((MODEL, tmp_path / "file", "--quantization", "wint8"), 1, ["is no empty folder"]),
        ((MODEL, tmp_path / "no" / "out", "--quantization", "wint8"), 1, ["no such directory"]),
        ((tmp_path / "named", tmp_path / "out", "--quantization", "wint8"), 1, ["packed as wint8"]),
        ((tmp_path / "named", tmp_path / "out", "--quantization", "none"), 1, ["packed as wint8"]),
    ]:
        result = command("quantize", *args)
        assert result.returncode == code, (args, result.stderr)
        assert len(result.stderr.splitlines()) == 1, result.stderr
        for word in words:
            assert word in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_full_disk_leaves_nothing(tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # noqa: E731
    result = command("quantize", MODEL, tmp_path / "out", "--quantization", "wint8", preexec_fn=limit)
    assert result.returncode == 1 and "model.safetensors: File too large" in result.stderr, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_unreadable_input_leaves_nothing(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(MODEL, source)
    shard = source / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    result = command("quantize", source, tmp_path / "out", "--quantization", "wint8")
    assert result.returncode == 1 and shard.name in result.stderr and "truncated" in result.stderr
    shutil.copy(f"{MODEL}/{shard.name}", shard)
    (source / "tokenizer.json").symlink_to("nowhere")
    result = command("quantize", source, tmp_path / "out", "--quantization", "wint8")
    assert result.returncode == 1 and "tokenizer.json" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("sign, code, left", [(signal.SIGKILL, -9, 1), (signal.SIGINT, 130, 0)])
def test_stopped_half_way(tmp_path, sign, code, left):
    source = tmp_path / "source"
    write_synthetic(source)  # takes long enough to be met half-way
    out = tmp_path / "out"
    process = subprocess.Popen([BINARY, "quantize", str(source), str(out), "--quantization", "wint4", "--threads", "1"],
                               stderr=subprocess.DEVNULL, cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out.partial-*/model.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(sign)
    assert process.wait(timeout=60) == code
    assert not out.exists()
    assert len(list(tmp_path.glob("out.partial-*"))) == left  # what nobody could remove is named as what it is


def write_synthetic(folder):
    """ERNIE-4.5-0.3B's dimensions, all weights zero: a sparse file. Bytes and pages are those of a real one."""
    c = json.loads((ROOT / "bench/configs/ernie-4.5-0.3b/config.json").read_text())
    hidden, width, head = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    shapes = {"model.embed_tokens.weight": [c["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        for name, rows in (("q", c["num_attention_heads"]), ("k", c["num_key_value_heads"]), ("v", c["num_key_value_heads"])):
            shapes[f"{p}self_attn.{name}_proj.weight"] = [rows * head, hidden]
        shapes[p + "self_attn.o_proj.weight"] = [hidden, c["num_attention_heads"] * head]
        shapes[p + "mlp.gate_proj.weight"] = shapes[p + "mlp.up_proj.weight"] = [width, hidden]
        shapes[p + "mlp.down_proj.weight"] = [hidden, width]
        shapes[p + "input_layernorm.weight"] = shapes[p + "post_attention_layernorm.weight"] = [hidden]
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    folder.mkdir()
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)
    (folder / "config.json").write_text(json.dumps(c))
    for name in ("tokenizer.model", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        shutil.copy(f"{MODEL}/{name}", folder / name)


@pytest.mark.slow  # a sanitizer's shadow memory is not what is counted here
def test_peak_memory_while_loading(tmp_path, start_server):
    source, packed = tmp_path / "source", tmp_path / "packed"
    write_synthetic(source)
    process = subprocess.Popen([BINARY, "quantize", str(source), str(packed), "--quantization", "wint4"], stderr=subprocess.DEVNULL, cwd=ROOT)
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_bytes(process.pid))
        time.sleep(0.002)
    assert process.returncode == 0 and 0 < peak < 64e6  # a weight at a time
    size = sum(p.stat().st_size for p in packed.iterdir())
    assert 330e6 < size < 350e6
    for model, flags in ((packed, ()), (source, ("--quantization", "wint4"))):
        server = start_server(*flags, "--max-model-len", "2048", "--max-num-seqs", "1", model=model)
        assert peak_bytes(server.process.pid) <= 1.15 * size + 64e6


def peak_bytes(pid):
    try:
        with open(f"/proc/{pid}/status") as f:
            return next((1024 * int(line.split()[1]) for line in f if line.startswith("VmHWM")), 0)
    except ProcessLookupError:
        return 0
