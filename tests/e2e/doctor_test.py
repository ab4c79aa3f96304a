"""fastdeploy doctor: what it reads, what it says is wrong, its exit code."""

import json
import os
import resource
import subprocess

import pytest

from conftest import BINARY, MODEL, ROOT


def doctor(*args, **keywords):
    return subprocess.run([BINARY, "doctor", *args], capture_output=True, text=True, timeout=120, cwd=ROOT, **keywords)


def report(*args, **keywords):
    result = doctor("--json", *args, **keywords)
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1
    return result.returncode, json.loads(result.stdout)


def test_json_tells_what_is_here():
    code, found = report()
    assert code == 0 and found["can_serve"] is True
    cpu = found["cpu"]
    assert 1 <= cpu["usable_processors"] <= len(os.sched_getaffinity(0)) <= cpu["processors"]
    assert cpu["features"]["AVX2"] is True and cpu["serves"] is True
    assert cpu["kernels"] in ("avx2", "avx512", "avx512_bf16")
    if cpu["kernels"] == "avx512_bf16":
        assert cpu["features"]["AVX-512 BF16"] is True
    assert 0 < found["memory"]["available_bytes"] < found["memory"]["total_bytes"]
    assert found["device_auto"] == ("cuda:0" if found["gpus"] else "cpu")
    assert all(set(p) == {"severity", "what", "fix"} and p["fix"] for p in found["problems"])
    if not found["cuda"]["built"]:
        assert found["gpus"] == [] and found["cuda"]["runtime"] is None
    assert "model" not in found


def test_text_says_the_same():
    _, found = report()
    result = doctor()
    assert result.returncode == 0 and result.stderr == ""
    lines = dict((line.split(None, 1) for line in result.stdout.splitlines() if not line.startswith((" ", "warning", "error", "gpu"))))
    assert lines["--device"] == f"auto takes {found['device_auto']}"
    assert f"{found['cpu']['usable_processors']} of {found['cpu']['processors']} processors" in lines["cpu"]
    assert f"kernels: {found['cpu']['kernels']}" in result.stdout
    assert lines["verdict"] == "can serve"
    assert sum(line.startswith(("warning", "error")) for line in result.stdout.splitlines()) == len(found["problems"])


def test_the_kernels_follow_the_environment():
    _, found = report(env={**os.environ, "FASTDEPLOY_ISA": "avx2"})
    assert found["cpu"]["kernels"] == "avx2"


def test_flags_of_the_processors():
    cpu = max(os.sched_getaffinity(0))
    code, found = report("--cpu-isa", "avx2", "--cpu-affinity", str(cpu))
    assert code == 0 and found["cpu"]["kernels"] == "avx2"
    assert found["cpu"]["threads"] == 1 and found["cpu"]["thread_cpus"] == [cpu]
    assert found["cpu"]["nodes"] == 1
    assert f"1 thread on CPU {cpu}, pinned" in doctor("--cpu-affinity", str(cpu)).stdout
    _, found = report("--cpu-affinity", str(cpu), "--threads", "2")
    assert found["cpu"]["thread_cpus"] == []  # two threads share a CPU as the scheduler likes
    problem = next(p for p in found["problems"] if p["what"].startswith("--threads 2 exceeds the 1 core"))
    assert problem["severity"] == "warning" and "--threads 1" in problem["fix"]
    wrong = doctor("--cpu-affinity", "60000")
    assert wrong.returncode == 2 and "CPU 60000 is not among" in wrong.stderr


def test_a_processor_less_is_seen():
    one = sorted(os.sched_getaffinity(0))[:1]
    _, found = report(preexec_fn=lambda: os.sched_setaffinity(0, one))
    assert found["cpu"]["usable_processors"] == found["cpu"]["threads"] == 1


def test_few_open_files_are_a_problem_with_a_fix():
    code, found = report(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)))
    assert code == 0  # a warning
    problem = next(p for p in found["problems"] if "files can be open" in p["what"])
    assert problem["severity"] == "warning" and "256" in problem["what"] and "ulimit" in problem["fix"]
    assert found["max_open_files"] == 256


def test_model_that_fits():
    code, found = report(MODEL)
    assert code == 0
    assert found["model"]["family"] == "ernie4_5_vl_moe" and found["model"]["weight_bytes"] > 30e6
    assert "cpu" in found["model"]["fits_on"]
    assert "fit on: cpu" in doctor(MODEL).stdout


def write_huge(folder, gigabytes):
    """A checkpoint whose header promises so many bytes in a sparse file."""
    folder.mkdir()
    (folder / "config.json").write_text((ROOT / "bench/configs/ernie-4.5-0.3b/config.json").read_text())
    rows = gigabytes * 10**9 // 2000
    header = json.dumps({"x": {"dtype": "BF16", "shape": [rows, 1000], "data_offsets": [0, rows * 2000]}}).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + rows * 2000)
    return str(folder)


@pytest.mark.slow  # no sanitizer leaves room to map so large a file
def test_model_that_fits_nowhere(tmp_path):
    code, found = report(write_huge(tmp_path / "huge", 2000))
    assert code == 1 and found["can_serve"] is False
    assert found["model"]["fits_on"] == [] and found["model"]["weight_bytes"] == 2 * 10**12
    problem = found["problems"][-1]
    assert problem["severity"] == "error" and "fit into no memory" in problem["what"]
    text = doctor(str(tmp_path / "huge"))
    assert text.returncode == 1 and "fit on: nothing" in text.stdout and "cannot serve" in text.stdout


@pytest.mark.parametrize("args, code, words", [
    (("no-such-folder",), 1, "no such directory"),
    (("bench/configs/ernie-4.5-0.3b",), 1, "safetensors"),
])
def test_wrong_models_are_findings(args, code, words):
    result = doctor(*args)
    assert result.returncode == code and result.stderr == ""
    assert words in next(line for line in result.stdout.splitlines() if line.startswith("error"))


def test_usage():
    assert doctor("--help").returncode == 0 and "--json" in doctor("--help").stdout
    extra = doctor(MODEL, "extra")
    assert extra.returncode == 2 and "extra" in extra.stderr
    assert "did you mean --json?" in doctor("--jso").stderr
