"""Which stages train in which epoch, and their learning rates: pure functions of the configuration, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from da6401.config.schema import ModelConfig, PretrainedConfig


@dataclass(frozen=True)
class FreezePlan:
    """Which stages train in an epoch. The head always trains."""

    depth: int  # the first so many stages are frozen: no gradient reaches them
    last: int = 0  # so many of the last stages are frozen, too: gradients only pass through them
    norms_only: bool = False  # of the stages between, only the normalisation layers train


def freeze_plan(cfg: ModelConfig, epoch: int) -> FreezePlan:
    """The plan of an epoch, from 1. The depth never rises from one epoch to the next: stages are only unfrozen."""
    if not isinstance(cfg, PretrainedConfig):
        return FreezePlan(depth=0)
    count = len(cfg.backbone.stages)
    top = count - cfg.freeze_last  # the stages from freeze_depth to here train in some epoch
    since = epoch - cfg.head_epochs  # epochs since the first stage was unfrozen, this one included
    if since <= 0 or cfg.freeze_depth >= top:
        return FreezePlan(depth=count)
    unfrozen = 1 + (since - 1) // cfg.unfreeze_every if cfg.unfreeze_every else top
    return FreezePlan(max(cfg.freeze_depth, top - unfrozen), cfg.freeze_last, cfg.train_only == "norm")


def final_freeze_plan(cfg: ModelConfig) -> FreezePlan:
    """The plan of the last epochs of a run that is long enough: no stage is unfrozen after it."""
    if not isinstance(cfg, PretrainedConfig):
        return FreezePlan(depth=0)
    return freeze_plan(cfg, cfg.head_epochs + 1 + cfg.unfreeze_every * len(cfg.backbone.stages))


def epochs_at(cfg: ModelConfig, depth: int, *, epochs: int) -> range:
    """The epochs of a run, from 1, in which exactly so many stages are frozen."""
    at = [epoch for epoch in range(1, epochs + 1) if freeze_plan(cfg, epoch).depth == depth]
    return range(at[0], at[-1] + 1) if at else range(0)


def rate_factors(cfg: ModelConfig, stages: int) -> list[float]:
    """Each stage's learning rate as a multiple of the head's, first to last."""
    if isinstance(cfg, PretrainedConfig):
        return [cfg.backbone_lr_factor * cfg.stage_lr_decay ** (stages - 1 - stage) for stage in range(stages)]
    return [1.0] * stages


def describe_schedule(cfg: ModelConfig, *, epochs: int) -> list[str]:
    """A line that says from which epoch on each part trains; none if the plan never changes."""
    depths = dict.fromkeys(freeze_plan(cfg, epoch).depth for epoch in range(1, epochs + 1))
    if len(depths) == 1 or not isinstance(cfg, PretrainedConfig):
        return []
    names = [*cfg.backbone.stages, "the head"]
    starts = [f"{names[depth]} from epoch {epochs_at(cfg, depth, epochs=epochs)[0]}" for depth in depths]
    return [f"training begins with {', then '.join(starts)}"]
