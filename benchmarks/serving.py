"""python -m benchmarks.serving --run RUN --image FILE [--seconds 10]: throughput and p99 of `da6401 serve`, by hey.

`hey` (https://github.com/rakyll/hey; Debian and Ubuntu have it as a package) sends the same photograph from 1, 8 and 32
connections, with batches of 16 and of 1; beside it stands one forward pass in this process. Then the server is told to
stop (SIGTERM) five times under load: a request is lost where its client had a connection and got no answer. The page is
benchmarks/serving.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da6401.commands.predictor import Predictor

PAGE = Path(__file__).with_suffix(".md")
CLIENTS = (1, 8, 32)
BATCHES = (1, 16)
STOPS = 5  # times that it is told to stop
PASSES = 200
KIND = "image/jpeg"


@dataclass(frozen=True)
class Load:
    """What hey said."""

    answered: int  # with status 200
    others: dict[str, int]  # other statuses, and errors by their text
    per_second: float
    p50: float  # seconds
    p99: float

    @classmethod
    def of(cls, text: str) -> Load:
        statuses = {code: int(count) for code, count in re.findall(r"\[(\d{3})\]\s+(\d+) responses", text)}
        errors: dict[str, int] = {}
        for count, message in re.findall(r"^\s+\[(\d+)\]\s+(?!\d+ responses)(.+)$", text, re.MULTILINE):
            reason = message.rpartition(": ")[2]
            errors[reason] = errors.get(reason, 0) + int(count)
        return cls(
            statuses.pop("200", 0),
            {**statuses, **errors},
            float(_found(r"Requests/sec:\s+([\d.]+)", text)),
            float(_found(r"50%+ in ([\d.]+)", text)),
            float(_found(r"99%+ in ([\d.]+)", text)),
        )


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else "nan"


@contextmanager
def served(run: Path, *words: str, ended: Callable[[subprocess.Popen[str]], object] | None = None) -> Iterator[int]:
    """The port of a server in a process of its own; it is told to stop at the end."""
    line = [sys.executable, "-m", "da6401", "serve", str(run), "--port", "0", *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "asked for"
        first = process.stdout.readline()
        try:
            yield int(_found(r"127\.0\.0\.1:(\d+)", first))
        finally:
            process.send_signal(signal.SIGTERM)
            if ended is not None:
                ended(process)
            assert process.wait(60) == 0, "it ends with exit code 0"


def post(port: int, image: Path) -> dict[str, Any]:
    """The answer to one file."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict", image.read_bytes(), {"Content-Type": KIND})
    (answer,) = json.loads(connection.getresponse().read())["predictions"]
    connection.close()
    return dict(answer)


def hey(port: int, image: Path, *, clients: int, seconds: float) -> subprocess.Popen[str]:
    """hey, which runs so long."""
    words = ["hey", "-z", f"{seconds}s", "-c", str(clients), "-m", "POST", "-T", KIND, "-D", str(image)]
    return subprocess.Popen([*words, f"http://127.0.0.1:{port}/predict"], stdout=subprocess.PIPE, text=True)


def one_pass(run: Path, image: Path) -> tuple[float, float, float]:
    """Seconds to read the photograph, of a forward pass (median), and of its 99th percentile."""
    predictor = Predictor.load(run)
    pixels = predictor.read(image)
    reads, passes = [], []
    for _ in range(PASSES):
        began = time.perf_counter()
        predictor.read(image)
        middle = time.perf_counter()
        predictor.probabilities([pixels])
        reads.append(middle - began)
        passes.append(time.perf_counter() - middle)
    return statistics.median(reads), statistics.median(passes), statistics.quantiles(passes, n=100)[98]


def stop_under_load(run: Path, image: Path) -> Load:
    """16 clients, and SIGTERM while they ask."""
    with served(run) as port:
        load = hey(port, image, clients=16, seconds=5)
        time.sleep(2)
    return Load.of(load.communicate()[0])


def machine() -> str:
    """Where this is measured."""
    cores, load = f"{os.cpu_count()} {platform.machine()} cores", os.getloadavg()[0]
    return f"{cores}, which other programs used too (a load of {load:.1f}), {time.strftime('%Y-%m-%d')}"


def main() -> None:
    """Measure, then write the page."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--run", type=Path, required=True)
    words.add_argument("--image", type=Path, required=True)
    words.add_argument("--seconds", type=float, default=10)
    given = words.parse_args()
    if shutil.which("hey") is None:
        raise SystemExit("hey is not installed: apt-get install hey, or go install github.com/rakyll/hey@latest")
    where = machine()
    read, median, worst = one_pass(given.run, given.image)
    rows = []
    for batch in BATCHES:
        with served(given.run, "--batch", str(batch)) as port:
            post(port, given.image)
            for clients in CLIENTS:
                load = Load.of(hey(port, given.image, clients=clients, seconds=given.seconds).communicate()[0])
                assert not load.others, load
                rows.append(
                    f"| {batch} | {clients} | {load.answered} | {load.per_second:.0f} | {1000 * load.p50:.0f} ms | "
                    + (f"{1000 * load.p99:.0f} ms | {load.p99 / median:.1f} |" if load.answered >= 100 else "| |")
                )
    stops = [stop_under_load(given.run, given.image) for _ in range(STOPS)]
    refused = "connection refused"
    lost = [{name: count for name, count in stop.others.items() if name != refused} for stop in stops]
    predictor = Predictor.load(given.run)
    parameters = sum(each.numel() for each in predictor.model.parameters())
    threads = predictor.cfg.trainer.threads or "as many as the machine has"
    lines = [
        "# How fast is serve?", "",
        f"Written by `python -m benchmarks.serving --run RUN --image FILE`: a {predictor.cfg.model.name} at "
        f"{predictor.size} px with {parameters:,} parameters and {threads} threads, a photograph of "
        f"{given.image.stat().st_size // 1000} kB, on {where}; hey beside it, {given.seconds:g} s a row, n=1. "
        f"At the end the load was {os.getloadavg()[0]:.1f}: beside other programs the rows, which were measured one "
        "after the other, cannot be compared closely, and p99 is theirs more than the server's.",
        "",
        f"In one process, without a server (median of {PASSES}): reading the photograph {1000 * read:.1f} ms, one "
        f"forward pass {1000 * median:.1f} ms, its 99th percentile {1000 * worst:.1f} ms.", "",
        "| `--batch` | clients | answered | a second | p50 | p99 | p99 / one forward pass |",
        "|---|---|---|---|---|---|---|", *rows, "",
        f"Told to stop (SIGTERM) {STOPS} times while 16 clients asked, each on a connection that stays open:", "",
        "| answered | refused, after the end | lost |", "|---|---|---|",
        *(f"| {stop.answered} | {stop.others.get(refused, 0)} | {each or 0} |"
          for stop, each in zip(stops, lost, strict=True)),
    ]  # fmt: skip
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
