#!/usr/bin/env python3
"""summary.py DIR: makes results.md and results.svg of DIR/runs.jsonl.

The figure of a server and work is the median of its rounds; the spread from the least to the most
stands beside it. A ratio is the median of the rounds' ratios, as both sides of each ran within
minutes of each other.
"""

import collections
import json
import pathlib
import statistics
import subprocess
import sys

NAMES = {
    "sluice": "Sluice",
    "rabbitmq-quorum": "RabbitMQ, quorum queue",
    "rabbitmq-classic": "RabbitMQ, classic durable queue",
    "nats": "NATS JetStream, file",
    "redis": "Redis streams, appendfsync always",
    "beanstalkd": "beanstalkd, -f0",
}
# NATS 2.9 cannot; RabbitMQ does not say when it syncs a classic queue.
SYNCED = {"sluice": "yes", "rabbitmq-quorum": "yes", "rabbitmq-classic": "not told", "nats": "no",
          "redis": "yes", "beanstalkd": "yes"}
RATES = ["publish", "drain", "flow"]
PERCENTILES = ["p50", "p99", "p999"]


def read(path):
    """{server: {work: {round: figures}}}, servers in order of appearance."""
    runs = collections.defaultdict(lambda: collections.defaultdict(dict))
    for line in path.read_text().splitlines():
        run = json.loads(line)
        runs[run["server"]][run["work"]][run["round"]] = run["figures"]
    return runs


def rate_cell(rounds):
    rates = [figures["messages_per_second"] / 1000 for figures in rounds.values()]
    if not rates:
        return "–"
    digits = 0 if statistics.median(rates) >= 100 else 1
    text = f"{statistics.median(rates):.{digits}f} k"
    if len(rates) > 1:
        text += f" ({min(rates):.{digits}f}–{max(rates):.{digits}f})"
    return text


def latency_cell(rounds):
    if not rounds:
        return "–"
    of = {p: statistics.median(f["latency_us"][p] for f in rounds.values()) for p in PERCENTILES}
    return " / ".join(f"{of[p] / 1000:.2f}" for p in PERCENTILES)


def ratio_cell(ours, theirs):
    both = ours.keys() & theirs.keys()
    if not both:
        return "–"
    ratios = [ours[r]["messages_per_second"] / theirs[r]["messages_per_second"] for r in both]
    return f"{statistics.median(ratios):.1f}"


def table(heading, rows):
    align = ["---"] * 2 + ["---:"] * (len(heading) - 2)
    return "\n".join("| " + " | ".join(row) + " |" for row in [heading, align, *rows]) + "\n"


def markdown(runs):
    rows = [[NAMES[server], SYNCED[server], *(rate_cell(works[w]) for w in RATES),
             latency_cell(works["pace"])] for server, works in runs.items()]
    text = "Messages per second: median of the rounds (least–most). Latency at a fixed 2,000/s in ms.\n\n"
    text += table(["server", "synced before confirm", "publish", "drain", "both at once",
                   "p50 / p99 / p99.9"], rows)
    if "sluice" not in runs:
        return text
    ours = runs["sluice"]
    rows = [[NAMES[server], SYNCED[server], *(ratio_cell(ours[w], works[w]) for w in RATES)]
            for server, works in runs.items() if server != "sluice"]
    text += "\nHow many times as fast as it Sluice is:\n\n"
    text += table(["server", "synced before confirm", "publish", "drain", "both at once"], rows)
    return text


def plot(runs, out):
    data = out / "results.dat"
    with data.open("w") as file:
        for server, works in runs.items():
            rates = [statistics.median(f["messages_per_second"] for f in works[w].values()) / 1000
                     if works[w] else 0 for w in RATES]
            file.write(f'"{NAMES[server]}" ' + " ".join(f"{rate:.1f}" for rate in rates) + "\n")
    script = f"""
set terminal svg size 900,420 font "sans-serif,12" background "white"
set output "{out / 'results.svg'}"
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.9 noborder
set boxwidth 0.9
set logscale y
set yrange [0.1:*]
set ylabel "thousand messages per second (log)"
set grid ytics
set key top right
set xtics rotate by -20 nomirror
plot "{data}" using 2:xtic(1) title "publish" lc rgb "#2f6f9f", \
     "" using 3 title "drain" lc rgb "#e0a030", \
     "" using 4 title "both at once" lc rgb "#609060"
"""
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def main():
    out = pathlib.Path(sys.argv[1])
    runs = read(out / "runs.jsonl")
    (out / "results.md").write_text(markdown(runs))
    plot(runs, out)


if __name__ == "__main__":
    main()
