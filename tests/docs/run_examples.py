#!/usr/bin/env python3
"""Runs the examples of a document against a fresh server.

run_examples.py BIN_DIR DOCUMENT.md [SECTION]

All ```sh blocks (of the section with that heading only, if one is named) run in order, each as one bash script with
`set -euo pipefail`, in a directory that is empty but for build/bin, the programs. A line `# → TEXT` must be contained
in what the commands above it, back to the last such line, have printed; runs of spaces count as one. The server
listens on free ports; the default metrics address in an example becomes the server's.
"""
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

BLOCK_TIMEOUT_S = 60
START_TIMEOUT_S = 30
DEFAULT_METRICS = "127.0.0.1:7071"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def blocks_of(document, section):
    """(line number, lines) of each ```sh block; below the heading `section` only, unless None."""
    found, block, wanted = [], None, section is None
    for number, line in enumerate(document.read_text().splitlines(), 1):
        if block is None and section is not None and line.startswith("#"):
            wanted = line.lstrip("#").strip() == section
        if block is None and wanted and line.strip() == "```sh":
            block = (number + 1, [])
        elif block is not None and line.strip() == "```":
            found.append(block)
            block = None
        elif block is not None:
            block[1].append(line)
    return found


def script_of(first_line, lines):
    script = ["set -euo pipefail", "touch chunk.out", "trap '[ $? = 0 ] || cat chunk.out' EXIT"]
    chunk, expected = [], []

    def flush():
        nonlocal chunk, expected
        if chunk:
            script.append("{ :\n" + "\n".join(chunk) + "\n} > chunk.out 2>&1")
        for number, text in expected:
            quoted = "'" + re.sub(" +", " ", text).replace("'", "'\\''") + "'"
            script.append(f"tr -s ' ' < chunk.out | grep -F -- {quoted} > found.out || "
                          f"{{ echo 'line {number}: not printed:' {quoted} >&2; exit 1; }}")
        chunk, expected = [], []

    for offset, line in enumerate(lines):
        match = re.match(r"# → (.*)", line)
        if match:
            expected.append((first_line + offset, match.group(1)))
        else:
            if expected:
                flush()
            chunk.append(line)
    flush()
    return "\n".join(script)


def main():
    bin_dir, document = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    section = sys.argv[3] if len(sys.argv) > 3 else None
    failures, checked = 0, 0
    with tempfile.TemporaryDirectory(prefix="sluice-docs-") as work:
        port, http_port = free_port(), free_port()
        (pathlib.Path(work) / "build").mkdir()
        (pathlib.Path(work) / "build" / "bin").symlink_to(bin_dir)
        with open(pathlib.Path(work) / "sluiced.log", "w") as log:
            server = subprocess.Popen(
                [bin_dir / "sluiced", "--listen", f"127.0.0.1:{port}", "--http-listen",
                 f"127.0.0.1:{http_port}", "--data-dir", f"{work}/data"], stderr=log, stdout=log)
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{http_port}/readyz", timeout=1)
                    break
                except OSError:
                    if time.monotonic() > deadline or server.poll() is not None:
                        sys.exit("the server did not start:\n" +
                                 (pathlib.Path(work) / "sluiced.log").read_text())
                    time.sleep(0.05)
            env = {"PATH": f"{bin_dir}:/usr/local/bin:/usr/bin:/bin", "HOME": work, "LANG": "C.UTF-8",
                   "SLUICE_SERVER": f"127.0.0.1:{port}",
                   "SLUICE_METRICS": f"http://127.0.0.1:{http_port}/metrics"}
            for first_line, lines in blocks_of(document, section):
                lines = [line.replace(DEFAULT_METRICS, f"127.0.0.1:{http_port}") for line in lines]
                try:
                    result = subprocess.run(["bash", "-c", script_of(first_line, lines)], cwd=work,
                                            env=env, text=True, capture_output=True,
                                            timeout=BLOCK_TIMEOUT_S)
                    failed = result.returncode != 0
                    told = result.stdout + result.stderr
                except subprocess.TimeoutExpired as error:
                    failed, told = True, f"not done after {BLOCK_TIMEOUT_S} s\n{error.stdout}"
                checked += 1
                if failed:
                    failures += 1
                    print(f"{document}:{first_line}: the example does not work:\n{told}")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=20)
    print(f"{document}: {checked - failures} of {checked} examples work")
    if failures or not checked or server.returncode != 0:
        sys.exit(1)


if __name__ == "__main__":
    main()
