"""What a run trains, on which images, and where: built once by ``run``, read by all that follows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from da6401.config.schema import RunConfig
from da6401.data.folds import with_validation
from da6401.data.image_sets import TrainingData
from da6401.data.sources import load_training_data
from da6401.models.build import build_model
from da6401.models.counts import Counts, count
from da6401.models.freezing import freeze_plan
from da6401.models.own_networks import check_trainable
from da6401.models.stages import StagedModel
from da6401.registry import NETWORKS
from da6401.training.epoch_inputs import TrainingInputs
from da6401.training.ranks import Ranks


@dataclass(frozen=True)
class TrainingSetup:
    cfg: RunConfig
    device: torch.device
    data: TrainingData
    model: StagedModel
    counts: Counts  # of the model, with the stages frozen as in the last epoch
    inputs: TrainingInputs
    ranks: Ranks | None = None  # where several processes train together


def load_images(cfg: RunConfig) -> TrainingData:
    """What a configuration trains on and validates with; raises as load_training_data."""
    data = load_training_data(cfg.data)
    return with_validation(data) if cfg.trainer.train_on == "all" else data


def set_up(cfg: RunConfig, device: torch.device, data: TrainingData) -> TrainingSetup:
    """Build the network, counted as the last epoch trains it, and what it is fed with.

    Raises:
        UserError: a network that cannot be built, or weights that cannot be had.
    """
    model = build_model(cfg.model, num_classes=len(data.class_names), image_size=cfg.data.image_size)
    model.apply_freeze_plan(freeze_plan(cfg.model, cfg.trainer.epochs))
    if cfg.model.name in NETWORKS:
        check_trainable(cfg.model.name, model)
    counts = count(model, cfg.data.image_size)
    return TrainingSetup(cfg, device, data, model, counts, TrainingInputs(cfg, model, data, counts, device))
