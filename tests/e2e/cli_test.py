"""fastdeploy run, inspect, bench, --help, --version."""

import json
import os
import pty
import signal
import subprocess
import time

import pytest

from conftest import BINARY, EVAL, MODEL, ROOT

PICTURE = str(EVAL / "media" / "describe-000-0.png")
QUESTION = "What is in the picture?"
ANSWER = "A large brown cross, a small red ring, a small blue circle and a large blue diamond."
STORY = "Tell a story about Li Wei in Paris, a orange green and a cactus."


def command(*args, stdin=None, timeout=120):
    return subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=timeout, cwd=ROOT, input=stdin or "")


def test_version_and_help():
    assert command("--version").stdout.startswith("fastdeploy ")
    top = command("--help")
    assert top.returncode == 0
    for name in ("serve", "run", "bench", "quantize", "inspect", "doctor"):
        assert name in top.stdout
        page = command(name, "--help")
        assert page.returncode == 0 and "--model" in page.stdout
    serve = command("serve", "--help").stdout
    for flag in ("--port", "--max-model-len", "--quantization", "--quantize-lm-head", "--limit-mm-per-prompt", "--max-body-bytes", "--threads", "--cpu-affinity", "--cpu-isa"):
        assert flag in serve
    assert command().returncode == 2
    wrong = command("serv")
    assert wrong.returncode == 2 and "did you mean 'serve'?" in wrong.stderr


def test_run_with_a_picture():
    result = command("run", MODEL, QUESTION, "--image", PICTURE, "--temperature", "0")
    assert result.returncode == 0, result.stderr
    assert result.stdout == ANSWER + "\n"  # a pipe gets the answer alone
    assert "There are four shapes." in result.stderr


def test_run_flags():
    plain = command("run", "--model", MODEL, "Compute 45 + 11.", "--temperature=0", "--no-thinking")
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, "56\n", "")
    several = command("run", MODEL, "What is in picture 3?", "--temperature", "0", "--no-thinking",
                      *[a for i in range(3) for a in ("--image", str(next((EVAL / "media").glob(f"multi_image-000-{i}.*"))))])
    assert several.stdout == "A small blue diamond.\n"
    cut = command("run", MODEL, STORY, "--max-tokens", "5", "--no-thinking", "--temperature", "0")
    assert cut.returncode == 0 and "5 tokens" in cut.stderr
    seeds = [command("run", MODEL, STORY, "--no-thinking", "--seed", "7", "--temperature", "1.5", "--top-p", "1", "--max-tokens", "20").stdout
             for _ in range(2)]
    assert seeds[0] == seeds[1] != ""
    stopped = command("run", MODEL, STORY, "--no-thinking", "--temperature", "0", "--stop", "in Paris", "--system", "You are kind.")
    assert stopped.returncode == 0 and "in Paris" not in stopped.stdout


def test_run_reads_standard_input():
    result = command("run", MODEL, "--no-thinking", "--temperature", "0", stdin="Compute 45 + 11.\n")
    assert (result.returncode, result.stdout) == (0, "56\n")
    dash = command("run", MODEL, "-", "--no-thinking", "--temperature", "0", stdin="Compute 45 + 11.")
    assert dash.stdout == "56\n"
    assert command("run", MODEL).returncode == 2


def test_run_errors(tmp_path):
    for args, code, words in [
        ((MODEL, "x", "--image", "no-such.png"), 1, ["--image", "no-such.png"]),
        ((MODEL, "x", "--image", str(tmp_path)), 1, ["directory"]),
        ((MODEL, "x", "--image", __file__), 1, []),
        (("no-such-model", "x"), 1, ["no such directory"]),
        ((MODEL, "x", "--temperature", "cold"), 2, ["--temperature cold"]),
        ((MODEL, "x", "--max-tokens", "0"), 2, ["--max-tokens 0"]),
        ((MODEL, "x", "--imag", "y"), 2, ["did you mean --image?"]),
        ((MODEL, "x", "--thinking", "--no-thinking"), 2, ["--thinking"]),
        ((MODEL, "word " * 9000), 1, ["8192"]),
        ((), 2, ["--model"]),
    ]:
        result = command("run", *args)
        assert result.returncode == code, (args, result.stderr)
        assert len(result.stderr.splitlines()) == 1, result.stderr
        for word in words:
            assert word in result.stderr


def test_run_on_a_terminal_shows_reasoning_dim():
    master, terminal = pty.openpty()
    process = subprocess.Popen([BINARY, "run", MODEL, QUESTION, "--image", PICTURE, "--temperature", "0"], stdout=terminal,
                               stderr=terminal, stdin=terminal, cwd=ROOT)
    os.close(terminal)
    text = read_all(master)
    assert process.wait(timeout=60) == 0
    assert "\x1b[2mThere are four shapes." in text and "\x1b[0m" in text
    assert text.replace("\r\n", "\n").endswith(ANSWER + "\n")
    assert "loading weights" in text and "MB/s" in text


def read_all(fd):
    text = b""
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:  # Linux reports the other end's close as an error
            break
        if not part:
            break
        text += part
    os.close(fd)
    return text.decode()


def test_run_stops_at_the_first_ctrl_c():
    process = subprocess.Popen([BINARY, "run", MODEL, STORY, "--temperature", "100", "--top-p", "1", "--seed", "3", "--max-tokens", "8000",
                                "--no-thinking"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT)
    assert process.stdout.read(1)  # it answers
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait(timeout=30) in (0, 130)


def test_inspect():
    result = command("inspect", MODEL)
    assert result.returncode == 0
    for text in ("ernie4_5_vl_moe", "15708240", "413 tensors", "3 files", "31.5 MB", "model.layers.0.mlp.down_proj.weight", "[256, 768]",
                 "model-00001-of-00003.safetensors"):
        assert text in result.stdout
    tensors = [line.split()[0] for line in result.stdout.splitlines() if ".safetensors" in line and line.startswith(("model.", "vision"))]
    index = json.loads(open(os.path.join(MODEL, "model.safetensors.index.json"), encoding="utf-8").read())
    assert sorted(tensors) == sorted(index["weight_map"])


def test_inspect_json():
    listing = json.loads(command("inspect", "--model", MODEL, "--json").stdout)
    assert listing["parameters"] == 15708240
    assert listing["config"]["num_layers"] == 6
    index = json.loads(open(os.path.join(MODEL, "model.safetensors.index.json"), encoding="utf-8").read())
    assert {t["name"]: t["file"] for t in listing["tensors"]} == index["weight_map"]
    assert sum(t["bytes"] for t in listing["tensors"]) == listing["bytes"]


def test_inspect_other_families_and_errors(tmp_path):
    other = command("inspect", "tests/golden/models/qwen3")
    assert other.returncode == 0 and "not one this program can run" in other.stdout
    assert command("inspect", str(tmp_path / "no")).returncode == 1
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 7)
    broken = command("inspect", str(tmp_path))
    assert broken.returncode == 1 and "model.safetensors" in broken.stderr
    assert command("inspect").returncode == 2


@pytest.mark.parametrize("name", ["tools/demo.py"])
def test_demo(name):
    result = subprocess.run(["python3", str(ROOT / name), BINARY], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "answer: A large brown cross, a small red ring, " in result.stdout


def test_bench_prints_json_lines():
    result = command("bench", MODEL, "--json", "--prompt-tokens", "32,200", "--depth", "0,100", "--batch", "1,6", "--output-tokens", "24",
                     "--repeat", "1", "--max-num-batched-tokens", "96", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    limits, *lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert limits["read_bytes_per_second"] > 1e8 and limits["bf16_flop_per_second"] > 1e8
    tests = {line["test"]: line for line in lines}
    assert {"pp32", "pp200", "tg24", "tg24@b6", "tg24@d100", "tg24@d100@b6"} <= set(tests)
    for name, line in tests.items():
        assert line["seconds"] > 0 and line["floor_seconds"] > 0 and line["floor"] in ("bandwidth", "arithmetic")
        assert line["share_of_roofline"] == pytest.approx(line["floor_seconds"] / line["seconds"])
        assert ("ttft_seconds" in line) == name.startswith("pp")
        tokens = int(name.split("@")[0][2:]) * (6 if name.endswith("@b6") else 1)
        assert line["tokens_per_second"] == pytest.approx(tokens / line["seconds"])
    assert tests["pp200"]["ttft_seconds"] == tests["pp200"]["seconds"]


def test_bench_says_when_pages_do_not_suffice():
    result = command("bench", MODEL, "--num-kv-pages", "10", "--batch", "4", "--depth", "512", "--prompt-tokens", "32",
                     "--output-tokens", "8", "--repeat", "1", "--device", "cpu")
    assert result.returncode == 1
    assert "--batch 4 at --depth 512" in result.stderr and "there are 10" in result.stderr
