"""The programs that measure servers count what the server counts."""

import json
import subprocess
import sys

from conftest import ROOT


def run(program, *arguments):
    return subprocess.run([sys.executable, str(ROOT / program), *arguments], capture_output=True, text=True, timeout=120)


def test_serving_counts_as_the_server_does(server):
    before = server.metrics()
    result = run("bench/serving.py", "--url", server.url, "--streams", "3", "--requests", "7", "--prompt-tokens", "20",
                 "--output-tokens", "9", "--warmup", "0")
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    after = server.wait_idle()
    assert figures["requests"] == 7 and figures["errors"] == 0
    assert figures["prompt_tokens"] == after["fastdeploy:prompt_tokens_total"] - before["fastdeploy:prompt_tokens_total"] == 7 * 20
    assert figures["output_tokens"] == after["fastdeploy:generation_tokens_total"] - before["fastdeploy:generation_tokens_total"] == 7 * 9
    assert 0 < figures["ttft_ms"]["p50"] <= figures["ttft_ms"]["p99"] <= figures["e2e_ms"]["p99"]
    assert figures["output_tokens_per_s"] > 0


def test_serving_reports_refused_requests(server):
    result = run("bench/serving.py", "--url", server.url, "--streams", "2", "--prompt-tokens", "5000", "--warmup", "0")
    assert result.returncode == 1
    assert json.loads(result.stdout.splitlines()[-1])["errors"] == 2
    assert "2 x HTTP/1.1 400" in result.stderr and "--max-model-len" in result.stderr
