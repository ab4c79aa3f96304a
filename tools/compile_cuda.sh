#!/usr/bin/env bash
# Compiles the CUDA side (preset cuda-core) where nvcc 13 or newer is found; says so and does nothing elsewhere. Running it takes a GPU:
# make gpu-test.
set -euo pipefail
cd "$(dirname "$0")/.."
nvcc=${CUDACXX:-$(command -v nvcc || true)}
[ -n "$nvcc" ] || nvcc=/usr/local/cuda/bin/nvcc
if [ ! -x "$nvcc" ]; then
  echo 'compile_cuda: no nvcc here, the CUDA kernels are not compiled'
  exit 0
fi
release=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')
if [ "${release:-0}" -lt 13 ]; then
  echo "compile_cuda: $nvcc is release ${release:-unknown}, the CUDA kernels need 13; not compiled"
  exit 0
fi
export CUDACXX=$nvcc
exec tools/build.sh cuda-core all
