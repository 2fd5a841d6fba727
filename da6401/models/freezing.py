"""Which stages train in which epoch, and how fast: pure functions of the configuration, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from da6401.config.backbones import FACTS
from da6401.config.schema import CnnConfig, ModelConfig, PretrainedConfig


@dataclass(frozen=True)
class Plan:
    """What moves in an epoch. The head always trains."""

    depth: int  # the first so many stages are frozen: no gradient reaches them
    last: int = 0  # so many of the last stages keep still: gradients flow through them to the stages between
    norms_only: bool = False  # of the stages between, only the normalisation layers train


def epoch_plan(cfg: ModelConfig, epoch: int) -> Plan:
    """The plan of an epoch, from 1. Depths never rise from one epoch to the next: what has trained goes on training."""
    if isinstance(cfg, CnnConfig):
        return Plan(depth=0)
    count = len(FACTS[cfg.name].stages)
    top = count - cfg.freeze_last  # the stages from freeze_depth to here train sooner or later
    gone = epoch - cfg.head_epochs  # epochs since the first stage was let go, this one included
    if gone <= 0 or cfg.freeze_depth >= top:
        return Plan(depth=count)
    let_go = 1 + (gone - 1) // cfg.unfreeze_every if cfg.unfreeze_every else top
    return Plan(max(cfg.freeze_depth, top - let_go), cfg.freeze_last, cfg.train_only == "norm")


def final_plan(cfg: ModelConfig) -> Plan:
    """What trains once everything has been let go that ever will be, in a run that is long enough."""
    if isinstance(cfg, CnnConfig):
        return Plan(depth=0)
    return epoch_plan(cfg, cfg.head_epochs + 1 + cfg.unfreeze_every * len(FACTS[cfg.name].stages))


def epochs_at(cfg: ModelConfig, depth: int, *, epochs: int) -> range:
    """The epochs of a run, from 1, in which exactly so many stages are frozen."""
    at = [epoch for epoch in range(1, epochs + 1) if epoch_plan(cfg, epoch).depth == depth]
    return range(at[0], at[-1] + 1) if at else range(0)


def rate_factors(cfg: ModelConfig, stages: int) -> list[float]:
    """Each stage's learning rate as a multiple of the head's, first to last."""
    if isinstance(cfg, PretrainedConfig):
        return [cfg.backbone_lr_factor * cfg.stage_lr_decay ** (stages - 1 - stage) for stage in range(stages)]
    return [1.0] * stages


def describe_schedule(cfg: ModelConfig, *, epochs: int) -> list[str]:
    """A line for people, of what trains from when on; none where one plan holds for all epochs."""
    depths = dict.fromkeys(epoch_plan(cfg, epoch).depth for epoch in range(1, epochs + 1))
    if len(depths) == 1 or isinstance(cfg, CnnConfig):
        return []
    names = [*FACTS[cfg.name].stages, "the head"]
    starts = [f"{names[depth]} from epoch {epochs_at(cfg, depth, epochs=epochs)[0]}" for depth in depths]
    return [f"training begins with {', then '.join(starts)}"]
