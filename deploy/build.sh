#!/usr/bin/env bash
# build.sh PRESET [TARGET...]: configures (when needed) and builds; all targets when none is named.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
preset=$1
shift

case $preset in
  release) dir=$root/build ;;
  *) dir=$root/build-$preset ;;
esac

cd "$root"
# Checkouts in different places share what ccache keeps: paths below the root count as relative.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=true
# ninja configures again by itself when a CMakeLists.txt has changed.
if [ ! -f "$dir/build.ninja" ]; then
  cmake --preset "$preset" --log-level=NOTICE
fi

targets=()
if [ $# -gt 0 ]; then
  targets=(--target "$@")
fi
# No more jobs than memory carries: generated gRPC code takes about 1 GiB a compiler.
memory_jobs=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)
jobs=$(nproc)
if [ "$memory_jobs" -lt "$jobs" ]; then
  jobs=$((memory_jobs > 0 ? memory_jobs : 1))
fi
cmake --build "$dir" --parallel "$jobs" "${targets[@]}"
