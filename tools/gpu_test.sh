#!/usr/bin/env bash
# Everything that a GPU can be asked: kernels against the reference, golden models, tests/eval through the real server in every engine
# mode, faults, and a smoke bench. Behind `make gpu-test`.
#
# Tests need the CUDA toolkit, CMake, ninja and GoogleTest (where no package of it is installed, GTEST_DIR=folder of its sources).
# The server is FASTDEPLOY_BIN, build/cuda-portable/fastdeploy (make portable; it can be carried here), or it is built here.
# DEVICE=cuda:1 takes another GPU for the server.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda:0}
python=${PYTHON:-python3}
step() { echo "gpu-test: $*" >&2; }

have_gpu=1
nvidia-smi -L 2>/dev/null || have_gpu=
[ -n "$have_gpu" ] || step 'no NVIDIA GPU here; everything is built, the tests will be skipped'
cmake --preset cuda-core ${GTEST_DIR:+"-DFASTDEPLOY_GTEST_DIR=$GTEST_DIR"} >/dev/null
tools/build.sh cuda-core all
ctest --test-dir build/cuda-core --output-on-failure -L gpu -L parity
ctest --test-dir build/cuda-core --output-on-failure -L gpu -LE parity

binary=${FASTDEPLOY_BIN:-}
for built in build/cuda-portable/fastdeploy build/cuda/fastdeploy; do
  if [ -z "$binary" ] && [ -x "$built" ]; then binary=$built; fi
done
if [ -z "$binary" ]; then
  if missing=$(tools/setup.sh --check 2>&1); then
    tools/build.sh cuda fastdeploy
    binary=build/cuda/fastdeploy
  else
    step "no server program, so no eval: $missing"
    step 'install that, or carry build/cuda-portable/fastdeploy here from a machine that has it (make portable)'
    [ -z "$have_gpu" ] || exit 1
    exit 0
  fi
fi
[ -n "$have_gpu" ] || exit 0

step "eval with $binary on $device"
"$python" tools/gpu_eval.py --binary "$binary" --device "$device"
step 'faults'
for with_pytest in "$python" python3 ''; do
  [ -n "$with_pytest" ] && "$with_pytest" -c 'import pytest' 2>/dev/null && break
done
if [ -n "$with_pytest" ]; then
  FASTDEPLOY_BIN=$binary FASTDEPLOY_TEST_DEVICE=$device "$with_pytest" -m pytest -q -p no:cacheprovider --noconftest tests/e2e/faults_test.py
else
  step "no pytest for $python or python3, the faults are not tried"
fi
step 'smoke bench'
"$python" bench/serving.py --binary "$binary" --streams 64 -- --device "$device" --max-num-seqs 64 --max-model-len 1024
for kv in fp8 int8; do
  "$binary" bench bench/configs/ernie-4.5-0.3b --load-format dummy --kv-cache-dtype "$kv" --device "$device" --max-model-len 2048 --prompt-tokens 512 --batch 1,16 --output-tokens 64
done
for quantization in none wint8 wint4; do
  "$binary" bench bench/configs/ernie-4.5-0.3b --load-format dummy --quantization "$quantization" --device "$device" --max-model-len 2048 --prompt-tokens 512 --batch 1,16 --output-tokens 64
done
