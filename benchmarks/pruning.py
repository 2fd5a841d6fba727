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
PRUNERS = ("none", "successive_halving")
TITLES = {"digits": "The digits at 16 px", "clothing": "clothing-small at 32 px"}
SMALL = ("model.blocks=3", "model.filters=choice(8,16)", f"trainer.epochs={EPOCHS}", "trainer.threads=1")


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--root", help="the folder of clothing-small")
    given.add_argument("--only", choices=("digits", "clothing"))
    options = given.parse_args()
    sets = {
        "digits": ("data.image_size=16",),
        "clothing": ("data=folder", f"data.root={options.root}", "data.image_size=32"),
    }
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    for name, overrides in sets.items():
        if options.only in (None, name):
            found[name] = measure(name, overrides)
            write_json(OUT, found)


def measure(name: str, overrides: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """Of each pruner, for each seed: the best accuracy, the epochs that all trials ran, the seconds."""
    results: dict[str, list[dict[str, float]]] = {pruner: [] for pruner in PRUNERS}
    for seed in SEEDS:
        for pruner in PRUNERS:
            study = f"bench-{name}-{pruner}-{seed}"
            folder = Path("outputs/sweeps") / study
            shutil.rmtree(folder, ignore_errors=True)
            words = [
                "train", "--multirun", "sweep=part_a", *SMALL, *overrides, f"seed={seed}", f"study={study}",
                f"hydra.sweeper.n_trials={TRIALS}", f"hydra/sweeper/pruner={pruner}", "sweep.keep_checkpoints=1",
            ]  # fmt: skip
            subprocess.run([sys.executable, "-m", "da6401", *words], check=True, stdout=subprocess.DEVNULL)
            summary = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
            best = {
                "best": summary["best"][0]["value"],
                "epochs": summary["epochs_run"],
                "seconds": summary["seconds"],
            }
            print(f"{study}: {best}", flush=True)
            results[pruner].append(best)
            shutil.rmtree(folder)
    return results


def table(results: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Markdown rows: mean and standard deviation over the seeds, and the two ratios that the pruner is judged by."""
    lines = ["| pruner | best accuracy | epochs | seconds |", "|---|---|---|---|"]
    for pruner, runs in results.items():
        cells = [
            spread([run[key] for run in runs], digits) for key, digits in (("best", 4), ("epochs", 0), ("seconds", 0))
        ]
        lines.append(f"| {pruner} | {' | '.join(cells)} |")
    without, pruned = (
        [statistics.fmean(run[key] for run in results[p]) for key in ("best", "epochs")] for p in PRUNERS
    )
    lines.append(
        f"\nDifference of the means {pruned[0] - without[0]:+.4f}, at {pruned[1] / without[1]:.1%} of the epochs."
    )
    return lines


def spread(values: Sequence[float], digits: int) -> str:
    """mean ± standard deviation"""
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
