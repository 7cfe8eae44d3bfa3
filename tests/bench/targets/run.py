#!/usr/bin/env python3
"""Measures what Sluice promises of its speed on this machine, and says which promises hold.

  tests/bench/targets/run.py [--bin build/bin] [--out build/targets] [--rounds 3] [--scale 1]
                             [--works publish,drain,...]

Each work starts a server of its own on loopback, with default settings and an empty folder, and
stops it. Where a target is a ratio, both sides run in turns in one run; the figure is the median of
the rounds. Prints a table, which is kept in OUT/targets.md with the raw figures in OUT/runs.jsonl.
--scale 0.01 only shows that all works. The comparison with other servers is tests/bench/peers/run.sh.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

MIB = 1 << 20
START_SECONDS_MAX = 60
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def await_port(port, process):
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise SystemExit("run.py: the server did not start")


class Server:
    """A process that listens on `port`, and its figures as Linux tells them."""

    def __init__(self, command, port, log):
        self.port = port
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        await_port(port, self.process)
        self.start_seconds = time.monotonic() - self.began

    def proc(self, name):
        return pathlib.Path(f"/proc/{self.process.pid}/{name}").read_text()

    def memory_mib(self, key="VmHWM"):
        line = next(x for x in self.proc("status").splitlines() if x.startswith(key + ":"))
        return int(line.split()[1]) / 1024

    def written_bytes(self):
        line = next(x for x in self.proc("io").splitlines() if x.startswith("write_bytes:"))
        return int(line.split()[1])

    def cpu_seconds(self):
        fields = self.proc("stat").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()


class Bench:
    def __init__(self, args):
        self.bin = pathlib.Path(args.bin).resolve()
        self.out = pathlib.Path(args.out).resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.rounds = args.rounds
        self.scale = args.scale
        self.runs = (self.out / "runs.jsonl").open("w")
        self.rows = []

    def count(self, n):
        return max(100, int(n * self.scale))

    @contextlib.contextmanager
    def server(self, data=None):
        """Below OUT and not in $TMPDIR: that may be memory, where syncs cost nothing."""
        folder = data or tempfile.mkdtemp(prefix="data.", dir=self.out)
        port = free_port()
        with open(os.path.join(folder, "server.log"), "a") as log:
            server = Server([self.bin / "sluiced", "--data-dir", os.path.join(folder, "store"),
                             "--listen", f"127.0.0.1:{port}",
                             "--http-listen", f"127.0.0.1:{free_port()}"], port, log)
        try:
            yield server
        finally:
            server.stop()
            if not data:
                shutil.rmtree(folder)

    @contextlib.contextmanager
    def empty_server(self):
        port = free_port()
        server = Server([self.bin / "bench_empty_server", f"--port={port}"], port,
                        subprocess.DEVNULL)
        try:
            yield server
        finally:
            server.stop()

    def run(self, server, *arguments):
        """One `sluice bench`; its figures."""
        command = [self.bin / "sluice", "--server", f"127.0.0.1:{server.port}", "bench",
                   *map(str, arguments), "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures = json.loads(done.stdout)
        self.runs.write(json.dumps({"arguments": list(map(str, arguments)), "figures": figures})
                        + "\n")
        self.runs.flush()
        return figures

    def report(self, work, target, figure, holds):
        self.rows.append((work, target, figure, "yes" if holds else "**no**"))
        print(f"{work}: {figure} (target {target}): {'holds' if holds else 'DOES NOT HOLD'}",
              flush=True)

    def note(self, what, figure):
        """A figure without a target, to read others by."""
        self.rows.append((what, "", figure, ""))
        print(f"{what}: {figure}", flush=True)

    def rate(self, *arguments):
        rates = []
        for _ in range(self.rounds):
            with self.server() as server:
                rates.append(self.run(server, *arguments)["messages_per_second"])
        return statistics.median(rates)

    def table(self):
        lines = ["| work | target | measured | holds |", "|---|---|---|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def publish(b):
    rate = b.rate("publish", "--window", 10000, "--count", b.count(3_000_000))
    b.report("streamed publish, window 10,000", "≥ 200 k/s", f"{rate / 1000:.0f} k/s",
             rate >= 200_000)


def drain(b):
    rate = b.rate("drain", "--count", b.count(2_000_000))
    b.report("drain, each message acked", "≥ 200 k/s", f"{rate / 1000:.0f} k/s", rate >= 200_000)


def flow(b):
    rate = b.rate("flow", "--count", b.count(2_000_000))
    b.report("both at once", "≥ 120 k/s", f"{rate / 1000:.0f} k/s", rate >= 120_000)


def unary(b):
    for in_flight, target in ((500, 0.85), (200, 0.75)):
        count = b.count(200_000)
        arguments = ("publish", "--unary", "--producers", 1, "--in-flight", in_flight, "--count",
                     count, "--warmup", "0s")
        ratios, cpu = [], {"empty": [], "sluiced": []}
        for _ in range(b.rounds):
            rates = {}
            for name, start in (("empty", b.empty_server), ("sluiced", b.server)):
                with start() as server:
                    before = server.cpu_seconds()
                    rates[name] = b.run(server, *arguments)["messages_per_second"]
                    cpu[name].append((server.cpu_seconds() - before) / count * 1e6)
            ratios.append(rates["sluiced"] / rates["empty"])
        ratio = statistics.median(ratios)
        b.report(f"unary publish, {in_flight} in flight", f"≥ {target:.0%} of an empty handler",
                 f"{ratio:.0%} ({rates['sluiced'] / 1000:.1f} k/s of "
                 f"{rates['empty'] / 1000:.1f} k/s)", ratio >= target)
        b.note("processor time of the server for such a call",
               f"{statistics.median(cpu['sluiced']):.0f} µs; the empty one's "
               f"{statistics.median(cpu['empty']):.0f} µs")


def percentiles(values):
    values = sorted(values)
    return [values[min(len(values) - 1, int(len(values) * p))] for p in (0.5, 0.99, 0.999)]


def sleep_until(due):
    left = due - time.monotonic()
    if left > 0:
        time.sleep(left)


def sync_times(folder, rate, seconds):
    """What the disk alone needs to append 1 KiB durably, `rate` times a second; in ms."""
    times = []
    path = folder / "syncs"
    block = os.urandom(1024)
    with path.open("wb", buffering=0) as file:
        began = time.monotonic()
        for i in range(int(rate * seconds)):
            sleep_until(began + i / rate)
            file.write(block)
            before = time.monotonic()
            os.fdatasync(file.fileno())
            times.append((time.monotonic() - before) * 1000)
    path.unlink()
    return times


def wake_times(rate, seconds):
    """How long one process needs to wake another through a pipe; in ms. A message takes eight such
    steps from its producer to its consumer."""
    asks, answers = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(asks[1])
        while stamp := os.read(asks[0], 8):
            passed = time.monotonic_ns() - int.from_bytes(stamp, "little")
            os.write(answers[1], passed.to_bytes(8, "little"))
        os._exit(0)
    times = []
    began = time.monotonic()
    for i in range(int(rate * seconds)):
        sleep_until(began + i / rate)
        os.write(asks[1], time.monotonic_ns().to_bytes(8, "little"))
        times.append(int.from_bytes(os.read(answers[0], 8), "little") / 1e6)
    os.close(asks[1])
    os.waitpid(child, 0)
    return times


def pace(b):
    syncs = sync_times(b.out, 2000, max(2, 20 * b.scale))
    wakes = wake_times(2000, max(2, 20 * b.scale))
    with b.server() as server:
        figures = b.run(server, "pace", "--rate", "2000/s", "--seconds",
                        f"{max(2, int(60 * b.scale))}s")
    us = figures["latency_us"]
    b.report("latency at 2,000/s, p50 / p99 / p99.9", "≤ 0.4 / 1 / 5 ms",
             " / ".join(f"{us[p] / 1000:.2f}" for p in ("p50", "p99", "p999")) + " ms",
             us["p50"] <= 400 and us["p99"] <= 1000 and us["p999"] <= 5000)
    b.note("the same of a write and fdatasync of 1 KiB at that rate, nothing else",
           " / ".join(f"{ms:.2f}" for ms in percentiles(syncs)) + " ms")
    b.note("the same of one process that wakes another, nothing else",
           " / ".join(f"{ms:.2f}" for ms in percentiles(wakes)) + " ms")


def deep(b):
    with b.server() as server:
        figures = b.run(server, "deep", "--depth", b.count(10_000_000), "--size", 100, "--count",
                        b.count(1_000_000))
        memory = server.memory_mib()
    ratios = figures["ratios"]
    least = min(ratios[f"{what}_deep_to_empty"] for what in ("publish", "drain", "flow"))
    b.report("behind 10 M messages: publish / drain / both", "≥ 0.8 of empty",
             " / ".join(f"{ratios[f'{what}_deep_to_empty']:.2f}"
                        for what in ("publish", "drain", "flow")), least >= 0.8)
    b.report("memory with 10 M waiting", "≤ 512 MiB", f"{memory:.0f} MiB at most", memory <= 512)


def restart(b):
    folder = tempfile.mkdtemp(prefix="data.", dir=b.out)
    try:
        with b.server(folder) as server:
            b.run(server, "publish", "--size", 100, "--count", b.count(10_000_000), "--keep",
                  "--window", 10000)
        with b.server(folder) as server:
            after_stop = server.start_seconds
            server.stop(signal.SIGKILL)
        with b.server(folder) as server:
            after_kill = server.start_seconds
        b.report("restart with 10 M waiting: after a stop / a kill", "≤ 3 s",
                 f"{after_stop:.2f} / {after_kill:.2f} s", max(after_stop, after_kill) <= 3)
    finally:
        shutil.rmtree(folder)


def many_queues(b):
    ratios = []
    for _ in range(b.rounds):
        with b.server() as server:
            figures = b.run(server, "many-queues", "--queues", b.count(10_000), "--count",
                            b.count(500_000))
        ratios.append(figures["ratios"]["many_to_one"])
    ratio = statistics.median(ratios)
    b.report("publish over 10 k queues at random", "≥ 0.5 of one queue", f"{ratio:.2f}",
             ratio >= 0.5)


def idle_consumers(b):
    ratios = []
    for _ in range(b.rounds):
        with b.server() as server:
            figures = b.run(server, "many-consumers", "--idle", "--consumers", b.count(10_000),
                            "--seconds", f"{max(2, int(20 * b.scale))}s")
        ratios.append(figures["ratios"]["p99_beside_idle_to_alone"])
    ratio = statistics.median(ratios)
    b.report("publish p99 beside 10 k idle subscriptions", "≤ 2 × of none",
             f"{ratio:.2f} × ({min(ratios):.2f} to {max(ratios):.2f})", ratio <= 2)


def idle_cpu(b):
    """What subscriptions cost a server to which nothing is published."""
    with b.server() as server:
        seconds = max(2, int(20 * b.scale))
        subscribing = subprocess.Popen(
            [b.bin / "sluice", "--server", f"127.0.0.1:{server.port}", "bench", "many-consumers",
             "--idle", "--consumers", str(b.count(10_000)), "--rate", "1", "--warmup", "0s",
             "--seconds", f"{seconds}s", "--json"], stdout=subprocess.DEVNULL)
        # A time alone, then the subscriptions, then the same time beside them.
        time.sleep(seconds + seconds / 2)
        before = server.cpu_seconds()
        time.sleep(seconds / 4)
        share = (server.cpu_seconds() - before) / (seconds / 4)
        if subscribing.wait() != 0:
            raise SystemExit("run.py: sluice bench many-consumers failed")
    b.report("processor time beside 10 k idle subscriptions", "≤ 2 % of a core", f"{share:.1%}",
             share <= 0.02)


def active_consumers(b):
    with b.server() as server:
        figures = b.run(server, "many-consumers", "--consumers", b.count(1_000), "--count",
                        b.count(1_000_000))
    ratio = figures["ratios"]["busiest_to_idlest_consumer"]
    b.report("1,000 consumers of one queue, busiest to idlest", "≤ 1.5", f"{ratio:.2f}",
             ratio <= 1.5)


def disk(b):
    count = b.count(3_000_000)
    with b.server() as server:
        b.run(server, "flow", "--count", count, "--warmup", "0s")
        ratio = server.written_bytes() / (count * 1024)
    b.report("bytes written per body byte, consumers keep up", "≤ 1.2", f"{ratio:.2f}",
             ratio <= 1.2)


def backlog_disk(b):
    """20 GB waiting, then consumed."""
    count = b.count(20_000_000)
    with b.server() as server:
        b.run(server, "drain", "--count", count, "--size", 1024, "--warmup", "0s")
        ratio = server.written_bytes() / (count * 1024)
    b.report("bytes written per body byte, a backlog of 20 GB", "≤ 4", f"{ratio:.2f}", ratio <= 4)


def bodies(b):
    size = max(64, int(2048 * b.scale)) * MIB
    ratios = []
    for _ in range(b.rounds):
        path = b.out / "sequential"
        block = os.urandom(MIB)
        began = time.monotonic()
        with path.open("wb", buffering=0) as file:
            for _ in range(size // MIB):
                file.write(block)
            os.fdatasync(file.fileno())
        disk_rate = size / (time.monotonic() - began)
        path.unlink()
        with b.server() as server:
            figures = b.run(server, "publish", "--size", "1023KiB", "--count", size // MIB,
                            "--window", 64, "--batch", 1)
        ratios.append(figures["messages_per_second"] * MIB / disk_rate)
    ratio = statistics.median(ratios)
    b.report("bodies of 1 MiB", "≥ 70 % of the disk's sequential synced writes",
             f"{ratio:.0%} (disk {disk_rate / MIB:.0f} MiB/s)", ratio >= 0.7)


WORKS = {f.__name__: f for f in (publish, drain, flow, unary, pace, deep, restart, many_queues,
                                 idle_consumers, idle_cpu, active_consumers, disk, backlog_disk,
                                 bodies)}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/bin")
    parser.add_argument("--out", default="build/targets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--works", default=",".join(WORKS))
    args = parser.parse_args()
    unknown = set(args.works.split(",")) - WORKS.keys()
    if unknown:
        parser.error(f"no such work: {', '.join(sorted(unknown))}; there are {', '.join(WORKS)}")
    bench = Bench(args)
    for work in args.works.split(","):
        WORKS[work](bench)
    table = bench.table()
    (bench.out / "targets.md").write_text(table)
    print("\n" + table)


if __name__ == "__main__":
    main()
