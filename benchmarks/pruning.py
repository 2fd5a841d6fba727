"""Does pruning find as good a trial for fewer epochs? The same sweep with and without, several seeds.

python -m benchmarks.pruning --root PATH/TO/clothing-small    (about an hour; --only digits for a third of it)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from da6401.config.sweeper_schema import PRUNERS as PRUNER_KEYS
from da6401.runs.atomic_files import write_json
from da6401.runs.run_folder import DATABASE
from da6401.sweep.pruners import build_pruner

OUT = Path("outputs/bench/pruning.json").absolute()
TRIALS, EPOCHS, SEEDS = 40, 9, (0, 1, 2, 3, 4)
# The first one is what the others are compared with.
PRUNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "successive_halving": ("successive_halving", {}),
    "successive_halving, reduction_factor=4": ("successive_halving", {"reduction_factor": 4}),
    "successive_halving, min_epochs=2, reduction_factor=4": (
        "successive_halving", {"min_epochs": 2, "reduction_factor": 4},
    ),
    "hyperband": ("hyperband", {}),
    "median": ("median", {}),
    "percentile, percentile=33, startup_trials=3": ("percentile", {"percentile": 33.0, "startup_trials": 3}),
}  # fmt: skip
TRAINED = ("none", "successive_halving")  # the others are replayed, unless --pruner asks for them
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
            for pruner in options.pruner or TRAINED:
                for seed in SEEDS:
                    found.setdefault(name, {}).setdefault(pruner, []).append(measure(name, pruner, seed, overrides))
                    write_json(OUT, found)


def measure(name: str, pruner: str, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    """The best accuracy, the epochs that all trials ran, the seconds; without pruning each trial's accuracies, too."""
    chosen, settings = PRUNERS[pruner]
    study = f"bench-{name}-{list(PRUNERS).index(pruner)}-{seed}"
    folder = Path("outputs/sweeps") / study
    shutil.rmtree(folder, ignore_errors=True)
    words = [
        "train", "--multirun", "sweep=part_a", *SMALL, *overrides, f"seed={seed}", f"study={study}",
        f"hydra.sweeper.n_trials={TRIALS}", f"hydra/sweeper/pruner={chosen}", "sweep.keep_checkpoints=1",
        *(f"hydra.sweeper.pruner.{key}={value}" for key, value in settings.items()),
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "da6401", *words], check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    result = {
        "seed": seed, "best": summary["best"][0]["value"], "epochs": summary["epochs_run"],
        "seconds": summary["seconds"],
    }  # fmt: skip
    print(f"{name}, {pruner}, seed {seed}: {result}", flush=True)
    if pruner == "none":
        result["curves"] = curves_of(folder)
    shutil.rmtree(folder)
    return result


def curves_of(folder: Path) -> list[list[float]]:
    """Each completed trial's validation accuracy after each epoch, in the order in which they ran."""
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / DATABASE}")
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [[trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values)] for trial in trials]


def replay(curves: Sequence[Sequence[float]], pruner: str) -> tuple[float, int]:
    """The best accuracy and the epochs, had this pruner watched these trials."""
    chosen, settings = PRUNERS[pruner]
    node = {"name": chosen, **dataclasses.asdict(PRUNER_KEYS[chosen]()), **settings}
    study = optuna.create_study(direction="maximize", pruner=build_pruner(node, steps=EPOCHS))
    best, epochs = 0.0, 0
    for curve in curves:
        trial = study.ask()
        for epoch, accuracy in enumerate(curve, start=1):
            trial.report(accuracy, epoch)
            epochs += 1
            if epoch < EPOCHS and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, max(curve))
            best = max(best, *curve)
    return best, epochs


def replay_table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown rows: what each pruner would have lost and saved on the trials of the sweeps without one."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recorded = [run for run in runs if "curves" in run]
    lines = ["| pruner | difference | share of the epochs |", "|---|---|---|"] if recorded else []
    for pruner in list(PRUNERS)[1:] if recorded else ():
        ends = [replay(run["curves"], pruner) for run in recorded]
        lost = [best - run["best"] for (best, _), run in zip(ends, recorded, strict=True)]
        share = [epochs / run["epochs"] for (_, epochs), run in zip(ends, recorded, strict=True)]
        lines.append(f"| {pruner} | {statistics.fmean(lost):+.4f} | {statistics.fmean(share):.1%} |")
    return lines


def table(results: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Markdown rows: mean and standard deviation over the seeds, and what a pruner is judged by."""
    lines = [
        "| pruner | n | best accuracy | epochs | seconds | difference | share of the epochs |",
        "|---|---|---|---|---|---|---|",
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
        lines.append(
            f"| {pruner} | {len(runs)} | {' | '.join([*cells, *(ratios if own is not without else ['', ''])])} |"
        )
    return lines


def spread(values: Sequence[float], digits: int) -> str:
    """mean ± standard deviation"""
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
