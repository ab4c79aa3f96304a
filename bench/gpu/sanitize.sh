#!/usr/bin/env bash
# compute-sanitizer over every CUDA test: the parity tests and the golden models. One line per (tool, test): findings, seconds.
#   bench/gpu/sanitize.sh [-b BUILD] [-t TOOLS] [-l SECONDS] [-d SECONDS] [-j JOBS] [-o LOGS] [FILTER]
# -l limits each (tool, test), -d the whole: what has not started by then is listed as not run. JOBS tests share the GPU.
# FILTER is a regular expression over "program Suite.Test"; without tests' parameters, which run together. The logs of all runs are
# kept in LOGS. Racecheck of CUDA 13.0 ends with an internal error in cuBLASLt's products that are cut over k, also in a program that has no
# kernel of ours; tests that get there are told apart from findings. Exit code 0 only when every test ran to its end, passed and had no finding.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build/cuda-core tools='racecheck memcheck synccheck' limit=300 total=540 jobs=12 logs=build/sanitize
usage() { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
while getopts b:t:l:d:j:o: option; do
  case $option in
    b) build=$OPTARG ;;
    t) tools=${OPTARG//,/ } ;;
    l) limit=$OPTARG ;;
    d) total=$OPTARG ;;
    j) jobs=$OPTARG ;;
    o) logs=$OPTARG ;;
    *) usage ;;
  esac
done
shift $((OPTIND - 1))
[ $# -le 1 ] || usage
filter=${1:-.}
command -v compute-sanitizer >/dev/null || PATH=$PATH:/usr/local/cuda/bin
command -v compute-sanitizer >/dev/null || { echo 'sanitize: no compute-sanitizer here; it comes with the CUDA toolkit' >&2; exit 1; }
mkdir -p "$logs"

# "program Suite.Test", once for all parameters of a test.
list_tests() {
  local program
  for program in "$build"/tests/parity/parity_cuda_*_test "$build"/tests/golden/model_golden_test; do
    # The test of a trap is left out: it is an error on purpose, and the tools hand it to whoever shares the GPU.
    "$program" --gtest_list_tests --gtest_filter='-*DeathTest*' | awk -v program="$program" '
      /^[^ ].*\.( |$)/ {suite = $1}
      /^  / {test = suite $1; sub(/\/[0-9]+$/, "", test); if (!seen[test]++) print program, test}'
  done
}

run_one() {
  local tool=$1 program=$2 test=$3 rc=0 begin=$SECONDS left result
  local log="$LOGS/$tool-${test//\//_}.log"
  left=$((DEADLINE - $(date +%s)))
  if [ "$left" -le 0 ]; then
    result='not run'
  else
    # The kernels of libraries are not ours to check: ours have this namespace in their mangled names. Every API call's result is
    # checked by the program itself.
    FASTDEPLOY_TEST_DEVICE=cuda FASTDEPLOY_TEST_REPEATS=2 timeout -k 5 "$((left < LIMIT ? left : LIMIT))" \
      compute-sanitizer --tool "$tool" --kernel-name kns=2fd4cuda --error-exitcode 9 --launch-timeout 120 --kill \
      --port $((49152 + 16 * SLOT)) $([ "$tool" != memcheck ] || echo --report-api-errors no) \
      "$program" --gtest_filter="$test:$test/*" >"$log" 2>&1 || rc=$?
    # ERROR SUMMARY: 2 errors; RACECHECK SUMMARY: 3 hazards displayed (1 error, 2 warnings)
    result=$(awk '/(ERROR|RACECHECK) SUMMARY:/ {for (i = 1; i < NF; ++i) if ($i == "SUMMARY:") {sum += $(i + 1); seen = 1}}
                  END {if (seen) print sum}' "$log")
    if [ "$rc" = 124 ] || [ "$rc" = 137 ]; then
      result="stopped after its time, ${result:-0} findings till then"
    elif grep -q '\[  SKIPPED \]\|no CUDA device' "$log"; then
      result='skipped, no device'
    elif grep -q 'Internal Sanitizer Error' "$log"; then
      result='ended by an error of the tool itself'
    elif [ -z "$result" ]; then
      result="ended with code $rc and no summary"
    elif [ "$result" = 0 ] && [ "$rc" != 0 ]; then
      result="0 findings, but the test failed with code $rc"
    else
      result="$result findings"
    fi
  fi
  printf '%-10s %-24s %-62s %4d s  %s\n' "$tool" "${program##*/}" "$test" $((SECONDS - begin)) "$result"
}
export -f run_one
export LOGS=$logs LIMIT=$limit DEADLINE=$(($(date +%s) + total))

tests=$(list_tests | grep -E -- "$filter") || { echo "sanitize: no test matches '$filter'" >&2; exit 1; }
for tool in $tools; do
  while read -r program test; do echo "$tool $program $test"; done <<<"$tests"
done | xargs -P "$jobs" -L 1 --process-slot-var=SLOT bash -c 'run_one "$@"' run_one | tee "$logs/summary.txt"
runs=$(wc -l <"$logs/summary.txt") clean=$(grep -c ' s  0 findings$' "$logs/summary.txt" || true)
echo "$clean of $runs runs without a finding; logs in $logs"
[ "$clean" = "$runs" ]
