#!/usr/bin/env bash
# Parity tests and timings of the experts and of sampling on this machine's GPU; from the repository root.
set -euo pipefail
build=${1:-build/cuda-core}
"$build"/tests/parity/parity_cuda_moe_test --gtest_brief=1
"$build"/tests/parity/parity_cuda_sample_test --gtest_brief=1
"$build"/bench/bench_gpu_moe
