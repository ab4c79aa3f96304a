#!/usr/bin/env bash
# Runs each fuzzer for a time under AddressSanitizer and UndefinedBehaviorSanitizer: tools/fuzz.sh [SECONDS [fuzz_x ...]].
# With clang the fuzzers are guided by coverage (libFuzzer) and their corpora grow in build/fuzz/corpus; with GCC seeds are mutated
# blindly. What made one fail lies in build/fuzz/findings. Exit code 1: something was found.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
seconds=${seconds:-60}
shift || true
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:exitcode=99}
clang=$(command -v clang++-19 || command -v clang++ || true)
preset=asan
if [ -n "$clang" ] && echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' |
  "$clang" -x c++ -fsanitize=fuzzer,address - -o /dev/null 2>/dev/null; then
  preset=fuzz
  [ -f build/fuzz/build.ninja ] || CXX=$clang cmake --preset fuzz >/dev/null
fi
if [ $# -eq 0 ]; then
  tools/build.sh $preset fuzzers
  set -- $(cd build/$preset/tests/fuzz && ls -- *.seeds | sed 's/\.seeds$//')
else
  for name in "$@"; do tools/build.sh $preset "$name"; done
fi
mkdir -p build/fuzz/findings
failed=0
for name in "$@"; do
  mapfile -t seeds <build/$preset/tests/fuzz/$name.seeds
  echo "== $name: $seconds s"
  if [ $preset = fuzz ]; then
    mkdir -p build/fuzz/corpus/$name
    for seed in "${seeds[@]}"; do cp -rn -- "$seed"/. build/fuzz/corpus/$name/ 2>/dev/null || cp -n -- "$seed" build/fuzz/corpus/$name/; done
    build/fuzz/tests/fuzz/$name -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0 \
      -artifact_prefix=build/fuzz/findings/$name- build/fuzz/corpus/$name || failed=1
  else
    build/asan/tests/fuzz/$name --seconds "$seconds" --last build/fuzz/findings/$name-last "${seeds[@]}" &&
      rm -f build/fuzz/findings/$name-last || failed=1
  fi
done
exit $failed
