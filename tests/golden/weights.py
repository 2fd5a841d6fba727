"""Eight configurations, and the weights that they train to: what changes no behaviour changes no bit of them.

    python -m tests.golden.weights [CHECKOUT]    # train them with CHECKOUT's code (this one's), compare with COMMIT's
    python -m tests.golden.weights --make        # write weights.json again, with COMMIT's code: needs the history

weights.json holds what COMMIT trained, and the machine and versions with which; elsewhere the comparison trains them
with COMMIT's code first. Like those of commands.py, the words are that version's: do not bring them up to date.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.house import files_of
from tests.golden.commands import COMMIT
from tests.golden.machine import facts

FILE = Path(__file__).with_suffix(".json")
REPOSITORY = Path(__file__).resolve().parents[2]

_RUN = ("device=cpu", "trainer.threads=1", "trainer.progress=false", "trainer.epochs=2", "trainer.batch_size=8")
_SHAPES = ("data=synthetic", "data.image_size=16", "data.classes=3", "data.images_per_class=12")
_CNN = ("model.filters=4", "model.blocks=2", "model.dense_width=8")
_PART_B = (*_RUN, "experiment=part_b", "model.weights=none", *_SHAPES, "data.image_size=32", "data.images_per_class=6")
_SWEEP = (
    "--multirun", *_RUN, *_SHAPES, *_CNN, "data.val_fraction=0.5", "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    "hydra/sweeper/sampler=tpe_joint", "hydra.sweeper.sampler.n_startup_trials=3",
)  # fmt: skip

# The words after `da6401 train` of each training in a configuration.
CONFIGURATIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "part_a": (
        (*_RUN, "experiment=part_a", "data=digits", "data.image_size=16", "data.val_fraction=0.9",
         "model.filters=[4,8]", "model.block_dropout=0.1", "optimizer.weight_decay=0.01", "seed=1"),
    ),
    # The crop is named: at COMMIT the experiment's wins over that of augmentation=standard; since dfcdfb5 it does not.
    "part_a_residual": (
        (*_RUN, "experiment=part_a", *_SHAPES, *_CNN, "model.filters=8", "model.organisation=halve",
         "model.kernel_size=5", "model.activation=gelu", "model.pooling=avg", "model.residual=true",
         "augmentation=standard", "augmentation.crop_scale=0.4", "augmentation.crop_ratio=1.5",
         "augmentation.rotate=20", "augmentation.hue=0.1", "optimizer=sgd", "optimizer.lr=0.05", "schedule=step",
         "schedule.step_epochs=1", "trainer.class_weights=true", "trainer.clip_norm=1.0", "seed=2"),
    ),
    # Backbones from random weights, frozen all the same: what trains is the rest. Without the cache, and with it.
    "part_b_two_stages": tuple(
        (*_PART_B, "model=efficientnet_lite0", "model.freeze_depth=2", "model.stage_lr_decay=0.8", "augmentation=none",
         f"model.feature_cache={cache}")
        for cache in ("off", "on")
    ),
    "part_b_seven_stages": tuple(
        (*_PART_B, "model=efficientnet_lite0", "model.freeze_depth=7", "model.head_epochs=1", "augmentation=light",
         f"model.feature_cache={cache}")
        for cache in ("off", "on")
    ),
    "part_b_head": tuple(
        (*_PART_B, "model=resnet18", "model.freeze_depth=5", "model.feature_views=3", "augmentation=standard",
         f"model.feature_cache={cache}")
        for cache in ("off", "on")
    ),
    "ema_and_mixup": (
        (*_RUN, *_SHAPES, *_CNN, "model.dropout=0.3", "augmentation=strong", "augmentation.cutmix=0.5",
         "schedule=cosine", "schedule.warmup=0.2", "trainer.ema_decay=0.9", "trainer.label_smoothing=0.1", "seed=4"),
    ),
    "sweep": (
        (*_SWEEP, "study=sweep", "hydra.sweeper.n_trials=6", "model.filters=int(interval(2,8))",
         "model.dropout=interval(0.0,0.5)", "seed=5"),
    ),
    "confirmed_sweep": (
        (*_SWEEP, "study=confirmed_sweep", "hydra.sweeper.n_trials=4", "sweep.confirm_top=2", "sweep.confirm_seeds=2",
         "sweep.keep_checkpoints=1", "seed=6"),
    ),
}  # fmt: skip

# What stood in the experiment's own files at COMMIT, and has other values now: for the code of today.
THEN: dict[str, tuple[str, ...]] = {
    name: ("model.convolutions=1", "optimizer.lr=2e-3", "augmentation.plain_end=0")[:count]
    for name, count in (("part_a", 3), ("part_a_residual", 1))
}

Weights = dict[str, list[str]]  # of each run folder: the hash of the weights after the last epoch, and of the best

PROGRAM = """
import json, sys
from pathlib import Path
import da6401
from da6401.cli import main

place, sys.argv = Path(sys.argv[1]).resolve(), ["da6401"]
if place not in Path(da6401.__file__).resolve().parents:
    sys.exit(f"{da6401.__file__} was imported, which is not in {place}")
for words in json.load(sys.stdin):
    if code := main(words):
        sys.exit(f"da6401 {' '.join(words)}: exit code {code}")
"""


def commands(name: str, then: Mapping[str, Sequence[str]] = THEN) -> list[list[str]]:
    """The words after `da6401` of a configuration's trainings; their run folders are in the folder ``name``.

    Args:
        then: further words of a configuration; none for the code of COMMIT.
    """
    return [
        [
            "train",
            *words,
            *then.get(name, ()),
            f"hydra.sweep.dir={name}" if "--multirun" in words else f"hydra.run.dir={name}/{number}",
        ]
        for number, words in enumerate(CONFIGURATIONS[name])
    ]


def trained(folder: Path) -> Weights:
    """What the runs under a folder say of their weights."""
    results = {path.parent: json.loads(path.read_text()) for path in sorted(folder.rglob("result.json"))}
    return {
        str(run.relative_to(folder)): [result["weights_sha256"], result["best_weights_sha256"]]
        for run, result in results.items()
    }


def train(checkout: Path, then: Mapping[str, Sequence[str]] = THEN) -> dict[str, Weights]:
    """Train all configurations with the package of a checkout, in a process of its own.

    Raises:
        SystemExit: a training failed, or another package was imported.
    """
    words = [each for name in CONFIGURATIONS for each in commands(name, then)]
    with tempfile.TemporaryDirectory() as place:
        here = {"PYTHONPATH": str(checkout.resolve()), "DA6401_CACHE_DIR": f"{place}/cache", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(checkout.resolve())], cwd=place, env={**os.environ, **here},
            input=json.dumps(words), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{checkout}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return {name: trained(Path(place, name)) for name in CONFIGURATIONS}


def one_hash(weights: Weights) -> str:
    """One hash for all runs of a configuration."""
    return hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()


def train_commit() -> dict[str, Weights]:
    """The same with the code of COMMIT."""
    with files_of(COMMIT, repository=REPOSITORY) as before:
        return train(before, {})


def main() -> int:
    """Print a line for each configuration; 1 where weights differ."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("checkout", nargs="?", type=Path, default=REPOSITORY, metavar="CHECKOUT")
    given.add_argument("--make", action="store_true", help="write weights.json with the code of COMMIT")
    asked = given.parse_args()
    if asked.make:
        content = {"commit": COMMIT, "made_on": facts(), "weights": train_commit()}
        FILE.write_text(json.dumps(content, indent=1) + "\n")
        return 0
    golden: dict[str, Any] = json.loads(FILE.read_text())
    known = golden["made_on"] == facts()
    before = golden["weights"] if known else train_commit()
    print(f"{COMMIT[:7]}: " + ("from weights.json" if known else "trained here, as weights.json is another machine's"))
    now = train(asked.checkout)
    for name, weights in now.items():
        runs = sorted(before[name].keys() | weights.keys())
        changed = [run for run in runs if before[name].get(run) != weights.get(run)]
        told = f"differs in {', '.join(changed)}" if changed else "the same"
        print(f"{name:20} {one_hash(weights)}  {len(weights)} runs: {told}")
    return int(now != before)


if __name__ == "__main__":
    sys.exit(main())
