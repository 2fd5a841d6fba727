"""python -m benchmarks.remedies DIR[,KEY=VALUE]... [--epochs 20] [--seeds 3]: what helps unbalanced classes.

Each DIR is a folder of labelled images with a test split, with keys that it needs, such as data=table. The same
recipe (experiment=part_a) is trained with each remedy, with the same epochs and seeds and one thread, and
evaluated on the test split. What is done is kept in benchmarks/remedies.jsonl, so that the command can be stopped and
given again; the page is benchmarks/remedies.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from da6401.runs.run_folder import read_result

DATA, PAGE = Path(__file__).with_suffix(".jsonl"), Path(__file__).with_suffix(".md")
REMEDIES = {
    "none": (),
    "balanced sampler": ("trainer.sampler=balanced",),
    "inverse weights": ("trainer.class_weights=true",),
    "effective number": ("trainer.class_weights=true", "trainer.class_weights_by=effective"),
    "logit adjustment": ("trainer.logit_adjustment=1",),
    "focal loss": ("trainer.focal_gamma=2",),
}
METRICS = ("macro_f1", "balanced_accuracy", "accuracy")  # of the table; macro_f1 is the one in question


def run(remedy: str, images: Sequence[str], *, name: str, size: int, epochs: int, seed: int) -> dict[str, Any]:
    """One training with a remedy, and its metrics on test."""
    recipe = ["experiment=part_a", f"trainer.epochs={epochs}", f"data.image_size={size}", f"seed={seed}"]
    machine = ["device=cpu", "trainer.threads=1", "trainer.progress=false"]
    with tempfile.TemporaryDirectory() as place:
        out = f"{place}/out"
        _da6401("train", *recipe, *machine, *images, *REMEDIES[remedy], f"hydra.run.dir={out}")
        _da6401("evaluate", out)
        result = read_result(Path(out))
    return {"data": name, "size": size, "epochs": epochs, "remedy": remedy, "seed": seed, "seconds": result.seconds,
            "test": {metric: result.test_metrics[metric] for metric in METRICS}}  # fmt: skip


def _da6401(*words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "da6401", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def done() -> list[dict[str, Any]]:
    """The runs that are kept."""
    return [json.loads(line) for line in DATA.read_text().splitlines()] if DATA.exists() else []


def rows(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table: each remedy's metrics on test over the seeds, and the gain in macro F1 over none, paired by seed."""
    for kind in sorted({(each["data"], each["size"], each["epochs"]) for each in runs}):
        mine = [each for each in runs if (each["data"], each["size"], each["epochs"]) == kind]
        none = {each["seed"]: each["test"]["macro_f1"] for each in mine if each["remedy"] == "none"}
        data, size, epochs = kind
        for remedy in REMEDIES:
            found = {each["seed"]: each["test"] for each in mine if each["remedy"] == remedy}
            if not found:
                continue
            cells = [_over_seeds([test[metric] for test in found.values()]) for metric in METRICS]
            gains = [test["macro_f1"] - none[seed] for seed, test in found.items() if seed in none]
            gain = "" if remedy == "none" or not gains else f"{statistics.fmean(gains):+.3f}"
            gain += f" ({min(gains):+.3f} to {max(gains):+.3f})" if gain else ""
            where = f"{data}, {size} px, {epochs} epochs"
            yield f"| {where} | {remedy} | {len(found)} | {' | '.join(cells)} | {gain} |"


def _over_seeds(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


def main() -> None:
    """Run what is missing, then write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", nargs="*", metavar="DIR[,KEY=VALUE...]")
    arguments.add_argument("--epochs", type=int, default=20)
    arguments.add_argument("--image-size", type=int, default=32)
    arguments.add_argument("--seeds", type=int, default=3)
    given = arguments.parse_args()
    have = {(each["data"], each["size"], each["epochs"], each["remedy"], each["seed"]) for each in done()}
    for seed, images, remedy in product(range(given.seeds), given.folders, REMEDIES):
        place, *keys = images.split(",")
        folder = Path(place).resolve()
        if (folder.name, given.image_size, given.epochs, remedy, seed) in have:
            continue
        source = [] if any(key.startswith("data=") for key in keys) else ["data=folder"]
        words = [*source, f"data.root={folder}", *keys]
        found = run(remedy, words, name=folder.name, size=given.image_size, epochs=given.epochs, seed=seed)
        with DATA.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
    PAGE.write_text(
        "# Remedies for unbalanced classes\n\nWritten by `python -m benchmarks.remedies`; its runs are in "
        "remedies.jsonl. The recipe of experiment=part_a, one thread, test split, mean ± standard deviation over the "
        "seeds; the gain in macro F1 over none, paired by seed (lowest to highest).\n\n"
        "| images | remedy | n | macro F1 | balanced accuracy | accuracy | gain in macro F1 |\n"
        "|---|---|---|---|---|---|---|\n" + "\n".join(rows(done())) + "\n"
    )


if __name__ == "__main__":
    main()
