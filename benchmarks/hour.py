"""python -m benchmarks.hour DIR[,KEY=VALUE]... [--minutes 5] [--seeds 3]: what the same minutes give, by test accuracy.

Each DIR is a folder of labelled images with a test split, with keys that it needs, such as data=table. The
arms: `da6401 tune` (both parts, with images of its own choice, and Part A alone), the recipe experiment=part_a with as
many epochs as fit, the recipe of 0.1.0 and the bare defaults likewise, and sweep=part_a by Optuna's official sweeper,
interrupted when the time is over. Every run is a process with one thread and an empty cache. What is done is kept in
benchmarks/hour.jsonl, so that the command can be stopped and given again; the page is benchmarks/hour.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
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

from da6401.config.command_line import check_command_line
from da6401.data.cache.cache_folder import FOLDER_VARIABLE
from da6401.runs.run_folder import read_result
from da6401.training.speed import measure

DATA, PAGE = Path(__file__).with_suffix(".jsonl"), Path(__file__).with_suffix(".md")
FILL = 0.92  # of the minutes is planned for a recipe's training, as a race plans its last one
START_SECONDS = 6.0  # imports, and reading the images from the cache
MACHINE = ("device=cpu", "trainer.threads=1", "trainer.progress=false")
OLD = (  # the recipe of 0.1.0
    "model.filters=32", "model.blocks=5", "model.convolutions=1", "optimizer.lr=2e-3", "augmentation.plain_end=0",
)  # fmt: skip
PLAIN = {"recipe": ("experiment=part_a",), "recipe of 0.1.0": ("experiment=part_a", *OLD), "defaults": ()}
ARMS = ("tune both", "tune a", *PLAIN, "official sweeper")
OWN_SIZE = ("tune both", "defaults")  # the others see images of the size that is given
DIGITS = "digits"  # instead of a folder: scikit-learn's


def data_words(text: str) -> tuple[str, ...]:
    """The overrides of the images that DIR[,KEY=VALUE...] names."""
    place, *keys = text.split(",")
    if place == DIGITS:
        return tuple(keys)
    source = [] if any(key.startswith("data=") for key in keys) else ["data=folder"]
    return (*source, f"data.root={Path(place).resolve()}", *keys)


def name_of(words: Sequence[str]) -> str:
    """The name of the images."""
    root = Path(next((word.partition("=")[2] for word in words if word.startswith("data.root=")), DIGITS))
    return root.name if root.name != "Dataset" else root.parent.name


def run(arm: str, data: Sequence[str], *, minutes: float, size: int, seed: int) -> dict[str, Any]:
    """One run of an arm: its test accuracy and its seconds."""
    images = [*data, f"seed={seed}", *MACHINE]
    if arm not in OWN_SIZE:
        images.append(f"data.image_size={size}")
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        da6401 = functools.partial(_da6401, cache=Path(place) / "cache")
        if arm in PLAIN:
            words = [*PLAIN[arm], *images]
            checked = check_command_line(words, multirun=False).config
            assert checked is not None
            epochs = max(1, int((FILL * 60 * minutes - START_SECONDS) / measure(checked).epoch))
            seconds = da6401("train", *words, f"trainer.epochs={epochs}", f"hydra.run.dir={out}")
            model = out
        elif arm == "official sweeper":
            words = ["sweep=part_a", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1000", *images]
            seconds = da6401("train", "--multirun", *words, f"hydra.sweep.dir={out}", most=60 * minutes)
            runs = [result.parent for result in out.glob("*/result.json")]
            model = max(runs, key=lambda run: read_result(run).val_accuracy or 0.0)
        else:
            words = [f"sweep={arm.replace(' ', '_')}", *images, f"sweep.minutes={minutes}"]
            seconds = da6401("train", "--multirun", *words, f"hydra.sweep.dir={out}")
            model = out / "model"
        da6401("evaluate", str(model))
        result = read_result(model)
    return {"arm": arm, "data": name_of(data), "minutes": minutes, "size": size, "seed": seed, "seconds": seconds,
            "test": result.test_accuracy, "val": result.val_accuracy}  # fmt: skip


def _da6401(*words: str, cache: Path, most: float | None = None) -> float:
    """Run the command, which is interrupted after the most seconds; returns its seconds."""
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", FOLDER_VARIABLE: str(cache)}
    command = subprocess.Popen([sys.executable, "-m", "da6401", *words], stdout=subprocess.DEVNULL, env=environment)
    try:
        code = command.wait(most)
    except subprocess.TimeoutExpired:
        command.send_signal(signal.SIGINT)
        command.wait()
        code = 0
    if code:
        raise SystemExit(f"{' '.join(words)}: exit code {code}")
    return time.perf_counter() - started


def done() -> list[dict[str, Any]]:
    """The runs so far."""
    return [json.loads(line) for line in DATA.read_text().splitlines()] if DATA.exists() else []


def rows(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The page's table: each arm's mean, and its gain over the recipe, paired by data set and seed."""
    kinds = sorted({(each["data"], each["minutes"], each["size"]) for each in runs})
    for data, minutes, size in kinds:
        mine = [each for each in runs if (each["data"], each["minutes"], each["size"]) == (data, minutes, size)]
        plain = next((arm for arm in PLAIN if any(each["arm"] == arm for each in mine)), "")
        recipe = {each["seed"]: each["test"] for each in mine if each["arm"] == plain}
        for arm in ARMS:
            found = {each["seed"]: each for each in mine if each["arm"] == arm}
            if not found:
                continue
            tests = [each["test"] for each in found.values()]
            gains = [100 * (each["test"] - recipe[seed]) for seed, each in found.items() if seed in recipe]
            gain = "" if arm == plain or not gains else interval(gains)
            seconds = max(each["seconds"] for each in found.values())
            mean = f"{statistics.fmean(tests):.3f} ({min(tests):.3f} to {max(tests):.3f})"
            yield f"| {data}, {size} px, {minutes:g} min | {arm} | {len(tests)} | {mean} | {gain} | {seconds:.0f} s |"


def interval(gains: Sequence[float]) -> str:
    """Their mean, with its 95% interval where there are several."""
    mean = statistics.fmean(gains)
    if len(gains) < 2:
        return f"{mean:+.1f}"
    half = student.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / len(gains) ** 0.5
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def main() -> None:
    """Run what is missing, then write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", nargs="*", metavar="DIR[,KEY=VALUE...]")
    arguments.add_argument("--minutes", type=float, default=5.0)
    arguments.add_argument("--image-size", type=int, default=32)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--first-seed", type=int, default=0, help="to run an arm again beside another, on one day")
    arguments.add_argument(
        "--arms", nargs="+", choices=ARMS, default=("tune both", "recipe", "recipe of 0.1.0", "official sweeper")
    )
    arguments.add_argument("--at-once", type=int, default=2, help="runs at the same time, one thread each")
    given = arguments.parse_args()
    key = ("arm", "data", "minutes", "size", "seed")
    have = {tuple(each[name] for name in key) for each in done()}

    def job(item: tuple[int, str, str]) -> None:
        seed, images, arm = item
        words = data_words(images)
        if (arm, name_of(words), given.minutes, given.image_size, seed) in have:
            return
        found = run(arm, words, minutes=given.minutes, size=given.image_size, seed=seed)
        with DATA.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)

    with ThreadPoolExecutor(given.at_once) as pool:
        seeds = range(given.first_seed, given.first_seed + given.seeds)
        list(pool.map(job, product(seeds, given.folders, given.arms)))
    PAGE.write_text(
        "# The same minutes\n\nWritten by `python -m benchmarks.hour`; its runs are in hour.jsonl. One thread a run on "
        "x86 cores. Test accuracy, mean (lowest to highest); the gain over the recipe (on the digits: the bare "
        "defaults) in points, "
        "paired by seed, with its 95% interval; the longest run. The recipe is given as many epochs as fit. "
        "`tune both` chooses the size of its images and may use ImageNet's weights; the others see images of the size "
        "that is given.\n\n"
        "| images | arm | n | test | against the recipe | at most |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows(done())) + "\n"
    )  # fmt: skip


if __name__ == "__main__":
    main()
