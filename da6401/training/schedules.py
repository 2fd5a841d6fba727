"""The learning-rate schedules, by name: the rate as a share of the highest, from the warm-up to the last step."""

from __future__ import annotations

import math

from da6401.config.schema import ScheduleConfig
from da6401.registry import SCHEDULES, Progress, schedule


def lr_factor(cfg: ScheduleConfig, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of a step as a share of the highest, 0..1: a warm-up, then the schedule's shape.

    Args:
        step: from 0 to steps_per_epoch * epochs - 1.
    """
    entry, total = SCHEDULES[cfg.name], steps_per_epoch * epochs
    warmup = round(cfg.warmup * total)
    if step < warmup:
        return entry.rise((step + 1) / warmup)
    return entry.shape(cfg, Progress(step - warmup, total - warmup, steps_per_epoch))


@schedule("constant")
def constant(cfg: ScheduleConfig, progress: Progress) -> float:
    """The highest rate to the end."""
    return 1.0


@schedule("step")
def drops(cfg: ScheduleConfig, progress: Progress) -> float:
    """Times step_factor every step_epochs, counted from the end of the warm-up."""
    return cfg.step_factor ** (progress.step // progress.steps_per_epoch // cfg.step_epochs)


@schedule("cosine", warmup=0.05)
def cosine(cfg: ScheduleConfig, progress: Progress) -> float:
    """Half a cosine down to final_factor."""
    return cfg.final_factor + (1 - cfg.final_factor) * (1 + math.cos(math.pi * progress.share)) / 2


def rise_from_25th(share: float) -> float:
    """Half a cosine up from 1/25."""
    return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * share)) / 2


schedule("onecycle", rise=rise_from_25th, warmup=0.2)(cosine)  # arXiv 1708.07120
