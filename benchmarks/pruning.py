"""Does pruning find as good a trial for fewer epochs? The same sweep with and without, several seeds.

python -m benchmarks.pruning --root PATH/TO/clothing-small    (about an hour; --only digits for a third of it)
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from da6401.rundir import write_json

OUT = Path("outputs/bench/pruning.json").absolute()
TRIALS, EPOCHS, SEEDS = 40, 9, (0, 1, 2)
# The first one is what the others are compared with.
PRUNERS = {
    "none": ("none",),
    "successive_halving": ("successive_halving",),
    "successive_halving, min_epochs=2, reduction_factor=4": (
        "successive_halving", "hydra.sweeper.pruner.min_epochs=2", "hydra.sweeper.pruner.reduction_factor=4",
    ),
    "hyperband": ("hyperband",),
}  # fmt: skip
TITLES = {"digits": "The digits at 16 px", "clothing": "clothing-small at 32 px"}
SMALL = ("model.blocks=3", "model.filters=choice(8,16)", f"trainer.epochs={EPOCHS}", "trainer.threads=1")


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--root", help="the folder of clothing-small")
    given.add_argument("--only", choices=("digits", "clothing"))
    given.add_argument("--pruner", choices=PRUNERS, action="append", help="all without")
    options = given.parse_args()
    sets = {
        "digits": ("data.image_size=16",),
        "clothing": ("data=folder", f"data.root={options.root}", "data.image_size=32"),
    }
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    for name, overrides in sets.items():
        if options.only in (None, name):
            for pruner in options.pruner or PRUNERS:
                found.setdefault(name, {})[pruner] = measure(name, pruner, overrides)
                write_json(OUT, found)


def measure(name: str, pruner: str, overrides: Sequence[str]) -> list[dict[str, float]]:
    """For each seed: the best accuracy, the epochs that all trials ran, the seconds."""
    chosen, *settings = PRUNERS[pruner]
    results = []
    for seed in SEEDS:
        study = f"bench-{name}-{list(PRUNERS).index(pruner)}-{seed}"
        folder = Path("outputs/sweeps") / study
        shutil.rmtree(folder, ignore_errors=True)
        words = [
            "train", "--multirun", "sweep=part_a", *SMALL, *overrides, f"seed={seed}", f"study={study}",
            f"hydra.sweeper.n_trials={TRIALS}", f"hydra/sweeper/pruner={chosen}", *settings,
            "sweep.keep_checkpoints=1",
        ]  # fmt: skip
        subprocess.run([sys.executable, "-m", "da6401", *words], check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        best = {"best": summary["best"][0]["value"], "epochs": summary["epochs_run"], "seconds": summary["seconds"]}
        print(f"{name}, {pruner}, seed {seed}: {best}", flush=True)
        results.append(best)
        shutil.rmtree(folder)
    return results


def table(results: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Markdown rows: mean and standard deviation over the seeds, and what a pruner is judged by."""
    lines = [
        "| pruner | best accuracy | epochs | seconds | difference | share of the epochs |",
        "|---|---|---|---|---|---|",
    ]
    means = {
        pruner: {key: statistics.fmean(run[key] for run in runs) for key in ("best", "epochs")}
        for pruner, runs in results.items()
    }
    without = means["none"]
    for pruner, runs in results.items():
        cells = [
            spread([run[key] for run in runs], digits) for key, digits in (("best", 4), ("epochs", 0), ("seconds", 0))
        ]
        own = means[pruner]
        ratios = [f"{own['best'] - without['best']:+.4f}", f"{own['epochs'] / without['epochs']:.1%}"]
        lines.append(f"| {pruner} | {' | '.join([*cells, *(ratios if own is not without else ['', ''])])} |")
    return lines


def spread(values: Sequence[float], digits: int) -> str:
    """mean ± standard deviation"""
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
