#!/usr/bin/env bash
# Measures Sluice and other queue servers on this machine with the same work, and compares them:
#   tests/bench/peers/run.sh [--rounds 3] [--scale 1] [--seconds 60] [--out build/peers]
#                            [--servers "sluice nats"] [--works "publish drain flow pace"]
# Installs what is missing, starts each server on loopback for each piece of work, in turns, and
# stops it. The result: OUT/results.md and OUT/results.svg, from the runs in OUT/runs.jsonl.
#   --scale 0.1: a tenth of the messages, to see that all works; figures need a quiet machine.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
here=$root/tests/bench/peers
rounds=3
scale=1
seconds=60
out=$root/build/peers
servers="sluice rabbitmq-quorum rabbitmq-classic nats redis beanstalkd"
works="publish drain flow pace"
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=$2 ;;
    --scale) scale=$2 ;;
    --seconds) seconds=$2 ;;
    --out) out=$2 ;;
    --servers) servers=$2 ;;
    --works) works=$2 ;;
    *) sed -n 's/^# \{0,1\}//p' "$0" | head -n 7 >&2; exit 2 ;;
  esac
  shift 2
done

# Debian starts a service when it installs a server. What was not there before is switched off again.
fresh=()
for package in beanstalkd nats-server rabbitmq-server redis-server; do
  dpkg-query -W "$package" >/dev/null 2>&1 || fresh+=("$package")
done
"$root/deploy/install-deps.sh" build peers
if [ -d /run/systemd/system ]; then
  for package in "${fresh[@]}"; do
    $([ "$(id -u)" -eq 0 ] || echo sudo) systemctl disable --now "$package" || true
  done
fi
"$root/deploy/build.sh" release sluiced sluice
cmake -S "$here" -B "$root/build/peers-bin" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_CXX_COMPILER_LAUNCHER=ccache --log-level=WARNING
cmake --build "$root/build/peers-bin" --parallel "$(nproc)"

# shellcheck source=tests/bench/peers/servers.sh
. "$here/servers.sh"

mkdir -p "$out"
# Not $TMPDIR: that may be memory, and then syncs cost nothing.
data=$(mktemp -d "$out/data.XXXXXX")
trap 'stop_server; rm -rf "$data"' EXIT
trap 'exit 130' INT TERM

# Messages that keep a server busy for some seconds.
count_for() {
  local count
  case $1 in
    sluice) count=3000000 ;;
    nats) count=500000 ;;
    redis) count=200000 ;;
    rabbitmq-quorum) count=100000 ;;
    *) count=60000 ;;
  esac
  awk -v n="$count" -v s="$scale" 'BEGIN { print int(n * s) }'
}

# run_work SERVER WORK: its figures, as one line of JSON.
run_work() {
  local server=$1 work=$2
  if [ "$server" != sluice ]; then
    "$root/build/peers-bin/peer_bench" --peer "$server" --port "$port" --work "$work" \
      --count "$(count_for "$server")" --seconds "$seconds"
    return
  fi
  local options=(--json --count "$(count_for sluice)")
  [ "$work" != pace ] || options=(--json --rate 2000/s --seconds "$seconds")
  "$root/build/bin/sluice" --server "127.0.0.1:$port" bench "$work" "${options[@]}"
}

: >"$out/runs.jsonl"
for round in $(seq "$rounds"); do
  for work in $works; do
    for server in $servers; do
      start_server "$server" "$data/$server"
      figures=$(run_work "$server" "$work")
      stop_server
      rm -rf "${data:?}/$server"
      printf '{"round":%s,"server":"%s","work":"%s","figures":%s}\n' \
        "$round" "$server" "$work" "$figures" >>"$out/runs.jsonl"
      printf 'round %s, %s, %s: %s/s\n' "$round" "$work" "$server" \
        "$(grep -o '"messages_per_second":[0-9]*' <<<"$figures" | head -n 1 | cut -d: -f2)" >&2
    done
  done
done

python3 "$here/summary.py" "$out"
cat "$out/results.md"
