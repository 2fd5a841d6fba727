"""The keys of `sweep`: how a sweep goes. Those of hydra.sweeper stand in ``sweeper_schema.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from da6401.config.rule import key
from da6401.registry import METRICS


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """How a sweep (--multirun) runs; a single run ignores these keys."""

    on_space_change: Literal["same", "extend"] = key(
        "same",
        "a study whose search space or other values have changed: same refuses it, extend continues with the new ones",
    )
    warm_start: str = key("", "another study of outputs/sweeps, whose best trials are tried first")
    objectives: list[str] = key(
        ["val_accuracy"],
        "what is optimised, [val_accuracy,parameters] for several; without it val_ and trainer.metric",
        names=METRICS,
    )
    max_parameters: int = key(0, "hard limit of the model's parameters; 0 is none", low=0, high=10**12)
    max_macs: int = key(0, "hard limit of multiply-accumulates an image; 0 is none", low=0, high=10**15)
    dry_run: bool = key(
        False, "print what the sweep would run first and its expected time; nothing is trained or left behind"
    )
    strategy: Literal["trials", "race"] = key(
        "trials",
        "trials: each is the whole training of another configuration; race: short trainings judge configurations, and "
        "most of sweep.minutes goes to long trainings of the best (docs/tune.md)",
    )
    members: int = key(3, "race: most networks whose mean is handed over; 1 is the best alone", low=1, high=20)
    minutes: float = key(
        0.0,
        "end the whole sweep after so long, from the command's start on, confirmation and summary included; it counts "
        "over all the times that the command is given; 0 is no limit",
        unit="minutes", low=0, high=1_000_000,
    )  # fmt: skip
    max_hours: float = key(0.0, "start no trial after so long; 0 is no limit", unit="hours", low=0, high=100_000)
    patience: int = key(0, "start no trial after so many without a better one; 0 is no limit", low=0, high=1_000_000)
    trial_minutes: float = key(
        0.0,
        "a trial that takes longer, from its first training step on, fails; 0 is no limit",
        unit="minutes",
        low=0,
        high=100_000,
    )
    retries: int = key(
        2, "how often a trial that was killed, or whose machine failed, is resumed from its checkpoint",
        low=0, high=1000,
    )  # fmt: skip
    retry_failed: bool = key(
        False, "run failed trials once more, after their cause is fixed; in addition to hydra.sweeper.n_trials"
    )
    lease_seconds: float = key(
        60.0, "a worker elsewhere that has not reported for so long is considered dead", unit="s", low=1, high=86_400
    )
    storage_minutes: float = key(
        10.0,
        "how long to wait for a storage that does not answer, or that another process has locked",
        unit="minutes",
        low=0,
        high=10_000,
    )
    keep_checkpoints: int = key(5, "the best k trials keep their checkpoints", unit="trials", low=1, high=1_000_000)
    checkpoint_gb: float = key(
        0.0,
        "space for all checkpoints; the best trial's are always kept; 0: no limit",
        unit="GB",
        low=0,
        high=1_000_000,
    )
    gpus: str | list[int] = key(
        "auto",
        "the GPUs that worker slots get in turn: auto takes all, or numbers with commas",
        pattern=r"auto|\d+(,\d+)*",
        shape="auto, numbers with commas",
        low=0,
    )
    folds: int = key(
        0, "each trial is k trainings over train and validation together, each with another part of them as "
        "validation (data.fold), pruned between them; its value is their mean; 0 is off, the ordinary split",
        low=0, high=100,
    )  # fmt: skip
    confirm_top: int = key(
        0, "retrain the best k trials with fresh seeds and rank them by their mean; 0 is off", low=0, high=1000
    )
    confirm_seeds: int = key(3, "fresh seeds of each confirmed trial", low=1, high=1000)
    plot_by: str = key(
        "", "at the end, results by each value of this key (model.freeze_depth): curve.csv, curve.png; empty is off",
        pattern=r"([a-z_]+(\.[a-z_]+)*)?", shape="a dotted key",
    )  # fmt: skip
