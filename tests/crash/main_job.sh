#!/bin/bash
# The main job on real input: numbered lines of a real text go through the command line tools while
# the server is killed with SIGKILL again and again. At the end the set of lines consumed equals the
# set confirmed, and nothing that was acked before a kill comes again.
#
#   main_job.sh BIN_DIR [LINES]      BIN_DIR holds sluiced and sluice; default 200000 lines
#
# Four processes publish with --confirmed-file (lines whose publish was answered OK) and --retry
# (lines whose answer a kill swallowed are sent again, and may then be stored twice under two ids),
# two consume with --acked-file (lines whose ack was answered OK). main_job_judge.py compares.
set -u -o pipefail

bin=${1:?usage: main_job.sh BIN_DIR [LINES]}
lines=${2:-200000}
readonly publishers=4 consumers=2 kills=5
readonly queue=main-job
readonly ready_seconds=30 drain_seconds=240

work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-main-job-XXXXXX")
server_pid=
declare -a client_pids=()

fail() {
  echo "FAIL: $*" >&2
  for log in "$work"/*.err "$work/sluiced.log"; do
    [ -s "$log" ] && { echo "--- $(basename "$log") ends ---"; tail -n 15 "$log"; } >&2
  done
  exit 1
}
cleanup() {
  local code=$?
  local pid
  for pid in "${client_pids[@]}" $server_pid; do kill -KILL "$pid" 2>/dev/null; done
  wait 2>/dev/null
  if [ "$code" -eq 0 ]; then rm -rf "$work"; else echo "kept: $work" >&2; fi
}
trap cleanup EXIT

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (: > "/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}
address=127.0.0.1:$(free_port)
http=127.0.0.1:$(free_port)
export SLUICE_SERVER=$address

start_server() {
  "$bin/sluiced" --listen "$address" --http-listen "$http" --data-dir "$work/data" \
    >> "$work/sluiced.log" 2>&1 &
  server_pid=$!
  local give_up=$((SECONDS + ready_seconds))
  until "$bin/sluice" health > /dev/null 2>&1; do
    kill -0 "$server_pid" 2>/dev/null || fail "the server exited at start"
    [ $SECONDS -lt $give_up ] || fail "the server is not ready after ${ready_seconds} s"
    sleep 0.05
  done
}
count() { cat "$@" 2>/dev/null | wc -l; }

# ---- the input: the package index as far as there is one, numbered so that each line is unique
text() {
  if apt-cache dumpavail 2>/dev/null | grep -q .; then
    apt-cache dumpavail 2>/dev/null
  fi
  cat /var/lib/dpkg/status 2>/dev/null
}
text | grep . | head -n "$lines" > "$work/text"
[ -s "$work/text" ] || fail "no package index on this machine"
# A short text is repeated; the numbers keep its lines apart.
while [ "$(wc -l < "$work/text")" -lt "$lines" ]; do
  cat "$work/text" "$work/text" | head -n "$lines" > "$work/longer"
  mv "$work/longer" "$work/text"
done
awk '{ printf "%d %s\n", NR, $0 }' "$work/text" > "$work/lines"
split -n "r/$publishers" -d "$work/lines" "$work/part."
echo "input: $(wc -l < "$work/lines") lines, $(wc -c < "$work/lines") bytes"

# ---- run it
start_server
"$bin/sluice" queue create "$queue" > /dev/null || fail "cannot create the queue"

declare -a publisher_pids=()
for ((i = 0; i < publishers; i++)); do
  "$bin/sluice" publish "$queue" --batch 50 --retry --retry-for 5m --quiet \
    --confirmed-file "$work/confirmed.$i" < "$work/part.0$i" 2> "$work/publish.$i.err" &
  publisher_pids+=($!)
  client_pids+=($!)
done
for ((i = 0; i < consumers; i++)); do
  "$bin/sluice" subscribe "$queue" --json --ack --follow --acked-file "$work/acked.$i" \
    > "$work/consumed.$i" 2> "$work/subscribe.$i.err" &
  client_pids+=($!)
done

# Each line is work twice, to publish and to consume. Every kill falls after a further eighth of all
# work since the start before it, and so hits a busy server: the first ones while lines are being
# published, the last ones while they are being consumed.
total=$(wc -l < "$work/lines")
done_of() { count "$work"/confirmed.[0-9] "$work"/acked.[0-9]; }
for ((k = 1; k <= kills; k++)); do
  goal=$(($(done_of) + total / 4))
  give_up=$((SECONDS + drain_seconds))
  until [ "$(done_of)" -ge "$goal" ]; do
    [ $SECONDS -lt $give_up ] || fail "only $(done_of) of $goal steps done before kill $k"
    kill -0 "$server_pid" 2>/dev/null || fail "the server ended by itself"
    sleep 0.02
  done
  kill -KILL "$server_pid"
  wait "$server_pid" 2>/dev/null
  # What was acked by now must not be consumed from here on. The acked files first: what they hold
  # was printed before.
  wc -l "$work"/acked.[0-9] > "$work/kill.$k.acked"
  wc -l "$work"/consumed.[0-9] > "$work/kill.$k.consumed"
  echo "kill $k: $(count "$work"/confirmed.[0-9]) confirmed, $(count "$work"/acked.[0-9]) acked"
  start_server
done

for pid in "${publisher_pids[@]}"; do
  wait "$pid" || fail "a publisher failed with exit code $?"
done
echo "published: $(count "$work"/confirmed.[0-9]) lines confirmed"

give_up=$((SECONDS + drain_seconds))
until [ "$("$bin/sluice" queue show "$queue" --json 2>/dev/null |
  python3 -c '
import json, sys
stats = json.load(sys.stdin)
stats = stats.get("stats", stats)
print(sum(int(stats.get(state, 0)) for state in ("ready", "leased", "delayed", "blocked")))')" = 0 ]; do
  [ $SECONDS -lt $give_up ] || fail "the queue does not drain"
  sleep 0.2
done
for ((i = 0; i < consumers; i++)); do
  pid=${client_pids[$((publishers + i))]}
  kill -INT "$pid" 2>/dev/null
  wait "$pid"
done

# ---- judge
python3 "$(dirname "$0")/main_job_judge.py" "$work" || fail "the sets differ"
