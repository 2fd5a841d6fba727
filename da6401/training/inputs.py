"""From a run's configuration to its Feeds: for each part of the schedule, whether features are worth keeping."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from da6401.config.schema import CnnConfig, FolderConfig, RunConfig
from da6401.data.cache.image_cache import DECODER
from da6401.data.sources import TrainingData
from da6401.models.counts import StageCount
from da6401.models.freezing import epochs_at, freeze_plan
from da6401.models.stages import StagedModel
from da6401.training.feature_cache_policy import Decision, decide
from da6401.training.features import Feeds


def feeds_of(
    cfg: RunConfig,
    model: StagedModel,
    data: TrainingData,
    stages: Sequence[StageCount],
    *,
    shapes: Sequence[tuple[int, ...]],
    macs: int,
    device: torch.device,
) -> Feeds:
    """Nothing is computed yet.

    Args:
        stages: of the model, the head among them.
        shapes: what each stage gives for one image.
        macs: of the whole network.
    """
    limit_bytes = round((cfg.data if isinstance(cfg.data, FolderConfig) else FolderConfig()).cache_limit_gb * 1e9)
    decisions: list[Decision] = []
    if not isinstance(cfg.model, CnnConfig):
        numbers = [0, *(math.prod(shape) for shape in shapes)]
        shares = {stage.name: stage.macs_share for stage in stages}
        epochs = cfg.trainer.epochs
        for cut in dict.fromkeys(freeze_plan(cfg.model, epoch).depth for epoch in range(1, epochs + 1)):
            share = sum(shares.get(name, 0.0) for name in model.stage_names[:cut])
            decisions.append(
                decide(
                    cfg.model,
                    cfg.augmentation,
                    cut=cut,
                    epochs=len(epochs_at(cfg.model, cut, epochs=epochs)),
                    train=len(data.train.names),
                    validation=len(data.validation.names),
                    numbers=numbers[cut],
                    macs=round(share * macs),
                    limit_bytes=limit_bytes,
                    device=device.type,
                )
            )
    pixels = f"{cfg.data.resize}, {DECODER}" if isinstance(cfg.data, FolderConfig) else cfg.data.source
    return Feeds(
        model, data, decisions, cfg=None if isinstance(cfg.model, CnnConfig) else cfg.model,
        augmentation=cfg.augmentation, trainer=cfg.trainer, device=device, pixels=pixels, limit_bytes=limit_bytes,
        seed=cfg.seed,
    )  # fmt: skip
