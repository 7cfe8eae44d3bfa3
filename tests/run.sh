#!/usr/bin/env bash
# Installs what is missing, builds, runs every test: all of them in release, the unit and model
# tests again under AddressSanitizer + UBSan, those with threads under ThreadSanitizer, and clang's
# thread-safety analysis over the libraries. Exit code 0: everything passed.
#   tests/run.sh            everything
#   tests/run.sh release    only these runs; names: release thread-safety asan tsan
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# A test that hangs fails after this long instead of holding up the run.
test_timeout_s=600
jobs=$(nproc)

passed=0
failed=0
skipped=0
summaries=()

say() { printf '\n==> [%s s] %s\n' "$SECONDS" "$*"; }

# count_run NAME BUILD_DIR CTEST_ARGUMENTS...: one run of ctest, added to the totals.
count_run() {
  local name=$1 dir=$2 report tests failures not_run
  shift 2
  report=$root/$dir/tests.xml  # ctest would take a relative path as below its own directory
  rm -f "$report"
  ctest --test-dir "$dir" --output-on-failure --no-tests=error --timeout "$test_timeout_s" \
    --parallel "$jobs" --output-junit "$report" "$@" || true
  if [ ! -s "$report" ]; then
    failed=$((failed + 1))
    summaries+=("$name: ctest did not finish")
    return
  fi
  attribute() { sed -n "s/^.*[[:space:]]$1=\"\([0-9]*\)\".*/\1/p" "$report" | head -n 1; }
  tests=$(attribute tests)
  failures=$(attribute failures)
  not_run=$(($(attribute disabled) + $(attribute skipped)))
  passed=$((passed + tests - failures - not_run))
  failed=$((failed + failures))
  skipped=$((skipped + not_run))
  summaries+=("$name: $((tests - failures - not_run)) of $tests passed")
}

# build_or_fail NAME PRESET TARGET...: a build that fails counts as one failure.
build_or_fail() {
  local name=$1
  shift
  if ! deploy/build.sh "$@"; then
    failed=$((failed + 1))
    summaries+=("$name: the build failed")
    return 1
  fi
}

run_release() {
  say "Building the release in build/"
  build_or_fail release release || return 0
  say "Running every test"
  count_run release build
}

run_thread_safety() {
  say "Checking lock annotations with clang (build-debug/)"
  if build_or_fail thread-safety debug sluice_checked_libraries; then
    passed=$((passed + 1))
    summaries+=("thread-safety: clean")
  fi
}

run_asan() {
  say "Building unit and model tests with ASan and UBSan (build-asan/)"
  build_or_fail asan asan sluice_asan_tests || return 0
  say "Running them"
  # The libraries of the system are not instrumented, so containers that cross into them would be
  # reported as overflows that are none.
  ASAN_OPTIONS=detect_container_overflow=0 UBSAN_OPTIONS=print_stacktrace=1 \
    count_run asan build-asan --label-regex asan
}

run_tsan() {
  say "Building the tests with threads under TSan (build-tsan/)"
  build_or_fail tsan tsan sluice_tsan_tests || return 0
  say "Running them"
  TSAN_OPTIONS="second_deadlock_stack=1 suppressions=$root/tests/support/tsan.supp" \
    count_run tsan build-tsan --label-regex tsan
}

deploy/install-deps.sh build test

runs=("$@")
if [ ${#runs[@]} -eq 0 ]; then
  runs=(release thread-safety asan tsan)
fi
for run in "${runs[@]}"; do
  case $run in
    release) run_release ;;
    thread-safety) run_thread_safety ;;
    asan) run_asan ;;
    tsan) run_tsan ;;
    *) echo "tests/run.sh: no run called '$run'; there are: release thread-safety asan tsan" >&2; exit 2 ;;
  esac
done

say "Summary"
printf '%s\n' "${summaries[@]}"
if [ "$skipped" -gt 0 ]; then
  echo "$passed passed, $failed failed, $skipped skipped"
else
  echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ]
