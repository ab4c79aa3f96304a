"""--config FILE and variables of the environment that stand for flags."""

import subprocess

import pytest

from conftest import BINARY, MODEL, ROOT, ask, free_port


def test_flags_from_a_file(start_server, tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text("""# as vLLM and FastDeploy write it
served_model_name: from-the-file   # underscores or hyphens
max-model-len: 1024
max_num_seqs: 3
port: 1                            # the command line says otherwise
api_key:
  - first
  - "second"
limit_mm_per_prompt:
  image: 7
  video: 1
enable_chunked_prefill: true
enable_prefix_caching: false
metrics_names: "both"
host:
""")
    server = start_server("--config", str(path), "--max-num-seqs", "5")
    key = {"X-Api-Key": "second"}
    model = server.http.get("/v1/models", headers=key).json()["data"][0]
    assert model["id"] == "from-the-file" and model["max_model_len"] == 1024
    assert server.metrics()["fastdeploy:max_batch_size"] == 5
    flags = server.http.get("/config-info", headers=key).json()["flags"]
    assert flags["limit-mm-per-prompt"] == '{"image":7,"video":1}' and flags["host"] == "127.0.0.1" and flags["config"] == str(path)
    assert flags["api-key"] == "(set)"
    assert server.http.get("/v1/models").status_code == 401
    assert "enable-chunked-prefill" in server.log_text()


def test_the_model_in_the_file(tmp_path):
    """Named in the file it need not stand on the command line, where another one comes first."""
    path = tmp_path / "serve.yaml"
    path.write_text(f"model: {MODEL}\nport: {free_port()}\napi-key-file: /nowhere\n")
    result = subprocess.run([BINARY, "serve", "--config", str(path)], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.returncode == 2 and "--api-key-file /nowhere" in result.stderr
    path.write_text(f"model: {MODEL}\n")
    result = subprocess.run([BINARY, "serve", "/nowhere", "--config", str(path)], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.returncode == 2 and "no such directory: /nowhere" in result.stderr


@pytest.mark.parametrize("text, words", [
    (None, ["no such file"]),
    ("max_model_len 4", ["line 1", "expected a line such as"]),
    ("port: 1\nmax_modell_len: 4\n", ["line 2", "did you mean --max-model-len?"]),
    ("max_model_len: many\n", ["--max-model-len many"]),
    ("tensor_parallel_size: 8\n", ["--tensor-parallel-size 8", "still to come"]),
    ("strict_requests: 3\n", ["line 1", "is a switch"]),
    ("a: &b c\n", ["line 1", "'&'"]),
])
def test_files_that_cannot_be(tmp_path, text, words):
    path = tmp_path / "serve.yaml"
    if text is not None:
        path.write_text(text)
    result = subprocess.run([BINARY, "serve", MODEL, "--config", str(path)], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("fastdeploy serve: ")]
    assert len(errors) == 1 and all(word in errors[0] for word in words), result.stderr


def test_stop_strings_of_the_environment(start_server, monkeypatch):
    monkeypatch.setenv("FD_MAX_STOP_SEQS_NUM", "2")
    body = {"messages": ask("a"), "max_tokens": 1}
    server = start_server()
    assert server.http.post("/v1/chat/completions", json={**body, "stop": ["x", "y"]}).status_code == 200
    refused = server.http.post("/v1/chat/completions", json={**body, "stop": ["x", "y", "z"]})
    assert refused.status_code == 400 and "at most 2" in refused.json()["error"]["message"]
    assert start_server("--max-stop-strings", "3").http.post("/v1/chat/completions", json={**body, "stop": ["x", "y", "z"]}).status_code == 200
    monkeypatch.setenv("FD_MAX_STOP_SEQS_NUM", "many")
    result = subprocess.run([BINARY, "serve", MODEL], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and "FD_MAX_STOP_SEQS_NUM=many" in result.stderr
