"""What a run trains, on which images, and where: built once by ``run``, read by all that follows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from da6401.config.schema import RunConfig
from da6401.data.image_sets import TrainingData
from da6401.models.counts import Counts
from da6401.models.stages import StagedModel
from da6401.training.epoch_inputs import TrainingInputs


@dataclass(frozen=True)
class TrainingSetup:
    cfg: RunConfig
    device: torch.device
    data: TrainingData
    model: StagedModel
    counts: Counts  # of the model, with the stages frozen as in the last epoch
    inputs: TrainingInputs
