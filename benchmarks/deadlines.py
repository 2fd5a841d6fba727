"""python -m benchmarks.deadlines [--runs 20] [--at-once 3]: by how much sweeps with sweep.minutes end too late.

Each run is a race on the embedded digits, with 1 to 5 minutes, as a process of its own beside the others and whatever
else the machine does. The page is benchmarks/deadlines.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from da6401.runs.run_folder import holds_run
from da6401.runs.trial_folders import MODEL

PAGE = Path(__file__).with_suffix(".md")


def run(minutes: float) -> tuple[float, float, int, bool]:
    """Minutes given, seconds taken, exit code, and whether there is a model."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        words = ["sweep=tune_a", "data.image_size=16", f"sweep.minutes={minutes}", f"hydra.sweep.dir={out}",
                 "device=cpu", "trainer.threads=1", "trainer.progress=false"]  # fmt: skip
        started = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "da6401", "train", "--multirun", *words], capture_output=True, check=False
        )  # fmt: skip
        return minutes, time.perf_counter() - started, ended.returncode, holds_run(out / MODEL)


def main() -> None:
    """Run them, then write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=20)
    arguments.add_argument("--at-once", type=int, default=3)
    given = arguments.parse_args()
    minutes = [1 + 4 * index / max(1, given.runs - 1) for index in range(given.runs)]
    load = os.getloadavg()[0]
    with ThreadPoolExecutor(given.at_once) as pool:
        runs = list(pool.map(run, minutes))
    late = [seconds - 60 * minutes for minutes, seconds, *_ in runs]
    lines = [
        "# Deadlines", "",
        f"Written by `python -m benchmarks.deadlines`: {given.runs} races of 1 to 5 minutes, {given.at_once} at a "
        f"time, on {os.cpu_count()} {platform.machine()} cores with a load of {load:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after. The worst ended {max(late):.1f} s late, and "
        f"{sum(found for *_, found in runs)} of {len(runs)} had a model. Allowed is the larger of 1% and 5 s.", "",
        "| minutes | seconds taken | late by | exit code | model |", "|---|---|---|---|---|",
        *(f"| {minutes:.2f} | {seconds:.1f} | {seconds - 60 * minutes:+.1f} | {code} | {'yes' if found else 'no'} |"
          for minutes, seconds, code, found in runs),
    ]  # fmt: skip
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
