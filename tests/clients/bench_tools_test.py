"""guidellm and aiperf finish a short run, with the tokenizer of the model folder and without a network."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from e2e import MODEL

BIN = pathlib.Path(sys.executable).parent
LIMIT_S = 600


def run(command, folder, **environment):
    result = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S,
                            env={**os.environ, "HOME": str(folder), **environment}, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout


@pytest.mark.parametrize("api", ["/v1/chat/completions", "/v1/completions"])
def test_guidellm(server, tmp_path, api):
    report = tmp_path / "report.json"
    run(["guidellm", "run", "--backend", f"kind=openai_http,target={server.url},model=tiny,request_format={api}",
         "--profile", "kind=concurrent,streams=4", "--constraint", "kind=max_requests,count=20",
         "--tokenizer", f"kind=huggingface_auto,model={MODEL}", "--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=16",
         "--output", f"kind=json,path={report}", "--disable-console-interactive"], tmp_path, HF_HUB_OFFLINE="1")
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert totals["errored"] == 0 and totals["successful"] == 20
    print("guidellm:", totals, "output tokens/s",
          round(benchmark["metrics"]["output_tokens_per_second"]["successful"]["mean"], 1))


@pytest.mark.parametrize("kind", ["chat", "completions"])
def test_aiperf(server, tmp_path, kind):
    # It takes a local path for a tokenizer only when HF_HUB_OFFLINE is not set; conftest.py keeps it from the network.
    run(["aiperf", "profile", "--model", "tiny", "--url", server.url, "--endpoint-type", kind, "--streaming", "--tokenizer", MODEL,
         "--concurrency", "4", "--request-count", "20", "--synthetic-input-tokens-mean", "64", "--synthetic-input-tokens-stddev", "0",
         "--output-tokens-mean", "16", "--ui", "none", "--artifact-dir", str(tmp_path / "out")], tmp_path)
    report = json.loads((tmp_path / "out" / "profile_export_aiperf.json").read_text())
    assert report["request_count"]["avg"] == 20
    assert report["error_summary"] == []
    print("aiperf:", report["request_count"]["avg"], "requests, output tokens/s", round(report["output_token_throughput"]["avg"], 1))
