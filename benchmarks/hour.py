"""python -m benchmarks.hour DIR... [--minutes 5] [--seeds 3]: what the same minutes give, by test accuracy.

Each DIR is a folder of labelled images with a test split. The arms: `da6401 tune` (Part A, and both parts), the recipe
experiment=part_a with as many epochs as fit, the recipe of 0.1.0 likewise, and a sweep over sweep=part_a without a
race. Every run is a process with one thread. What is done is kept in benchmarks/hour.jsonl, so that the command can be
stopped and given again; the page is benchmarks/hour.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from benchmarks.recipe import OLD
from da6401.config.command_line import check_command_line
from da6401.runs.run_folder import read_json, read_result
from da6401.training.speed import measure

DATA, PAGE = Path(__file__).with_suffix(".jsonl"), Path(__file__).with_suffix(".md")
FILL = 0.92  # of the minutes is planned for a recipe's training, as a race plans its last one
START_SECONDS = 6.0  # imports, and reading the images from the cache
MACHINE = ("device=cpu", "trainer.threads=1", "trainer.progress=false")
ARMS = ("tune a", "tune both", "recipe", "recipe of 0.1.0", "sweep")


def run(arm: str, folder: Path, *, minutes: float, size: int, seed: int) -> dict[str, Any]:
    """One run of an arm: its test accuracy and its seconds."""
    images = ("data=folder", f"data.root={folder}", f"data.image_size={size}", f"seed={seed}", *MACHINE)
    with tempfile.TemporaryDirectory() as place:
        out, started = Path(place) / "out", time.perf_counter()
        if arm.startswith("recipe"):
            words = ["experiment=part_a", *images, *(OLD if arm.endswith("0.1.0") else ())]
            checked = check_command_line(words, multirun=False).config
            assert checked is not None
            speed = measure(checked)
            epochs = max(1, int((FILL * 60 * minutes - START_SECONDS) / speed.epoch))
            started = time.perf_counter()
            _da6401("train", *words, f"trainer.epochs={epochs}", f"hydra.run.dir={out}")
            model = out
        else:
            part = {"tune a": "sweep=tune_a", "tune both": "sweep=tune_both", "sweep": "sweep=part_a"}[arm]
            more = ("hydra.sweeper.n_trials=1000",) if arm == "sweep" else ()
            _da6401("train", "--multirun", part, *images, f"sweep.minutes={minutes}", f"hydra.sweep.dir={out}", *more)
            model = out / "model" if arm != "sweep" else Path(str(read_json(out / "sweep.json")["winner"]))
        seconds = time.perf_counter() - started
        _da6401("evaluate", str(model))
        result = read_result(model)
    return {"arm": arm, "data": folder.name, "minutes": minutes, "size": size, "seed": seed, "seconds": seconds,
            "test": result.test_accuracy, "val": result.val_accuracy}  # fmt: skip


def _da6401(*words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "da6401", *words], check=True, stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def done() -> list[dict[str, Any]]:
    """The runs so far."""
    return [json.loads(line) for line in DATA.read_text().splitlines()] if DATA.exists() else []


def rows(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The page's table: each arm's mean, and its gain over the recipe, paired by data set and seed."""
    kinds = sorted({(each["data"], each["minutes"], each["size"]) for each in runs})
    for data, minutes, size in kinds:
        mine = [each for each in runs if (each["data"], each["minutes"], each["size"]) == (data, minutes, size)]
        recipe = {each["seed"]: each["test"] for each in mine if each["arm"] == "recipe"}
        for arm in ARMS:
            found = {each["seed"]: each for each in mine if each["arm"] == arm}
            if not found:
                continue
            tests = [each["test"] for each in found.values()]
            gains = [100 * (each["test"] - recipe[seed]) for seed, each in found.items() if seed in recipe]
            gain = "" if arm == "recipe" or not gains else _interval(gains)
            seconds = max(each["seconds"] for each in found.values())
            mean = f"{statistics.fmean(tests):.3f} ({min(tests):.3f} to {max(tests):.3f})"
            yield f"| {data}, {size} px, {minutes:g} min | {arm} | {len(tests)} | {mean} | {gain} | {seconds:.0f} s |"


def _interval(gains: Sequence[float]) -> str:
    mean = statistics.fmean(gains)
    if len(gains) < 2:
        return f"{mean:+.1f}"
    half = student.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / len(gains) ** 0.5
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def main() -> None:
    """Run what is missing, then write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", nargs="*", type=Path, metavar="DIR")
    arguments.add_argument("--minutes", type=float, default=5.0)
    arguments.add_argument("--image-size", type=int, default=32)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    arguments.add_argument("--at-once", type=int, default=2, help="runs at the same time, one thread each")
    given = arguments.parse_args()
    key = ("arm", "data", "minutes", "size", "seed")
    have = {tuple(each[name] for name in key) for each in done()}

    def job(item: tuple[int, Path, str]) -> None:
        seed, folder, arm = item
        if (arm, folder.name, given.minutes, given.image_size, seed) in have:
            return
        found = run(arm, folder.resolve(), minutes=given.minutes, size=given.image_size, seed=seed)
        with DATA.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)

    with ThreadPoolExecutor(given.at_once) as pool:
        list(pool.map(job, product(range(given.seeds), given.folders, given.arms)))
    PAGE.write_text(
        "# The same minutes\n\nWritten by `python -m benchmarks.hour`; its runs are in hour.jsonl. One thread a run on "
        "x86 cores, two runs at a time. Test accuracy, mean (lowest to highest); the gain over the recipe in points, "
        "paired by seed, with its 95% interval; the longest run. The recipe is given as many epochs as fit.\n\n"
        "| images | arm | n | test | against the recipe | at most |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows(done())) + "\n"
    )  # fmt: skip


if __name__ == "__main__":
    main()
