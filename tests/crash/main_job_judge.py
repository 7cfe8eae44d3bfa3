#!/usr/bin/env python3
"""Compares what main_job.sh published, had confirmed, consumed and acked.

main_job_judge.py DIR, where DIR holds
  lines                    all numbered lines
  confirmed.N              lines whose publish was answered OK, one file per publisher
  consumed.N               deliveries as JSON, one a line, one file per consumer
  acked.N                  lines whose ack was answered OK
  kill.K.acked/.consumed   `wc -l` of those files just after kill K
"""
import base64
import collections
import glob
import json
import os
import sys

SHOWN_MAX = 5  # examples of each kind of failure


def read_lines(path):
    with open(path, "rb") as file:
        return file.read().splitlines()


def read_all(folder, kind):
    """The lines of each file, by path."""
    return {path: read_lines(path) for path in sorted(glob.glob(f"{folder}/{kind}.[0-9]"))}


def marks(path):
    """Lines that each file had at a kill."""
    rows = (row.split() for row in read_lines(path))
    return {os.fsdecode(name): int(count) for count, name in rows if name != b"total"}


def main(folder):
    published = set(read_lines(f"{folder}/lines"))
    confirmed = {line for lines in read_all(folder, "confirmed").values() for line in lines}
    acked = read_all(folder, "acked")
    consumed = {
        path: [
            (delivery["message"]["id"], base64.b64decode(delivery["message"].get("body", "")))
            for delivery in map(json.loads, lines)
        ]
        for path, lines in read_all(folder, "consumed").items()
    }
    bodies = {body for rows in consumed.values() for _, body in rows}

    failures = []

    def expect_empty(what, lines):
        if lines:
            failures.append(what)
            print(f"{len(lines)} {what}, for example:")
            for line in sorted(lines)[:SHOWN_MAX]:
                print(f"  {line!r}")

    # The publishers went on until each line was confirmed, so all four sets are one.
    expect_empty("lines were never confirmed", published - confirmed)
    expect_empty("confirmed lines were never consumed (lost)", confirmed - bodies)
    expect_empty("consumed lines were never published", bodies - published)
    expect_empty("consumed lines were never confirmed", bodies - confirmed)

    checked = 0
    for acked_mark in sorted(glob.glob(f"{folder}/kill.*.acked")):
        acked_at = marks(acked_mark)
        consumed_at = marks(acked_mark.replace(".acked", ".consumed"))
        acks = collections.Counter(
            line for path, lines in acked.items() for line in lines[: acked_at[path]]
        )
        ids = collections.defaultdict(set)
        for path, rows in consumed.items():
            for message_id, body in rows[: consumed_at[path]]:
                ids[body].add(message_id)
        # A line that was stored twice has two ids, each with an ack of its own: only once there are
        # as many acks as ids is it certain which were acked.
        settled = {i for line, count in acks.items() if count >= len(ids[line]) for i in ids[line]}
        again = {
            message_id + " " + body.decode(errors="replace")
            for path, rows in consumed.items()
            for message_id, body in rows[consumed_at[path] :]
            if message_id in settled
        }
        checked += len(settled)
        expect_empty(f"messages came again that were acked before {acked_mark}", again)
    if checked == 0:
        failures.append("no ack came before a kill: the run proves nothing")

    deliveries = sum(len(rows) for rows in consumed.values())
    stored = len({message_id for rows in consumed.values() for message_id, _ in rows})
    print(
        f"{len(published)} lines, {len(confirmed)} confirmed, {len(bodies)} consumed; {stored} "
        f"messages stored (repeats of unanswered publishes included), {deliveries} deliveries, "
        f"{checked} acks checked at kills"
    )
    for failure in failures:
        print("FAIL:", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
