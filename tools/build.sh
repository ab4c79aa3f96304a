#!/usr/bin/env bash
# Configures a preset once and builds a target: tools/build.sh PRESET TARGET
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1 target=$2
[ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >"/dev/null"
# A translation unit takes up to 1 GiB; more jobs than memory would be slower than fewer.
memory_gib=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
jobs=${JOBS:-$(nproc)}
[ "$jobs" -le "$memory_gib" ] || jobs=$((memory_gib > 0 ? memory_gib : 1))
exec cmake --build "build/$preset" --target "$target" -j "$jobs" -- --quiet
