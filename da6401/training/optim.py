"""Optimizer, learning-rate schedule and weight averaging, from plain configuration values."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import torch
from torch import nn

from da6401.config.schema import OptimizerConfig, ScheduleConfig


def build_optimizer(
    cfg: OptimizerConfig, *, stages: Sequence[tuple[Iterable[nn.Parameter], float]], head: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """An optimizer over the parameters that train, in groups by rate and by weight decay; the head's come last.

    Each group carries its own highest rate as ``base_lr``. Frozen parameters are in no group, and those that a
    schedule freezes for now have no gradient, so that nothing can decay them. Biases and the scales of norms (one
    dimension) have no weight decay.

    Args:
        stages: the parameters of each stage, and their rate as a multiple of cfg.lr.
    """
    parts: list[tuple[float, list[nn.Parameter]]] = [
        (factor, [parameter for parameters, _ in same for parameter in parameters])
        for factor, same in groupby(stages, key=lambda part: part[1])
    ]
    parts.append((1.0, list(head)))
    groups = []
    for factor, parameters in parts:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for decays in (True, False):
            members = [parameter for parameter in trained if (parameter.ndim > 1) == decays]
            if members:
                rate = cfg.lr * factor
                decay = cfg.weight_decay if decays else 0.0
                groups.append({"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay})
    # One kernel for all parameters; and it alone learns on the device whether fp16's gradients are finite.
    on_cuda = bool(groups) and all(parameter.is_cuda for _, parameters in parts for parameter in parameters)
    fused = True if on_cuda else None
    betas = (cfg.momentum, 0.999)
    match cfg.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.momentum > 0, fused=fused)
        case "adam":
            return torch.optim.Adam(groups, lr=cfg.lr, betas=betas, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, lr=cfg.lr, betas=betas, fused=fused)
        case "nadam":
            return torch.optim.NAdam(groups, lr=cfg.lr, betas=betas)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=cfg.lr, momentum=cfg.momentum)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's rate to its own highest rate times the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def lr_factor(cfg: ScheduleConfig, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of a step as a share of the highest, 0..1.

    A linear warm-up, then the shape over what is left: constant; step (times step_factor every step_epochs, counted
    from the end of the warm-up); cosine to final_factor; onecycle (a cosine rise from 1/25 over the warm-up, then a
    cosine fall; arXiv 1708.07120).

    Args:
        step: from 0 to steps_per_epoch * epochs - 1.
    """
    total = steps_per_epoch * epochs
    warmup = round(cfg.warmup * total)
    if step < warmup:
        rise = (step + 1) / warmup
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * rise)) / 2 if cfg.name == "onecycle" else rise
    match cfg.name:
        case "constant":
            return 1.0
        case "step":
            return cfg.step_factor ** ((step - warmup) // steps_per_epoch // cfg.step_epochs)
        case "cosine" | "onecycle":
            gone = (step - warmup) / max(1, total - warmup)
            return cfg.final_factor + (1 - cfg.final_factor) * (1 + math.cos(math.pi * gone)) / 2


class WeightAverage:
    """An exponential moving average of a model's parameters and statistics, for validation and best.pt.

    The decay is warmed up, min(decay, (1 + n) / (10 + n)) after n updates; otherwise the initial weights dominate.

    Args:
        trainable: the names in the state dict of what training changes; all else stays equal to the model's.
    """

    def __init__(self, model: nn.Module, decay: float, trainable: Iterable[str]) -> None:
        self.decay = decay
        self.updates = 0
        self.model = copy.deepcopy(model).requires_grad_(False)
        averages, values = self.model.state_dict(), model.state_dict()  # both share their memory with the models
        self._pairs = [(averages[name], values[name]) for name in trainable]

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for average, value in self._pairs:
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)
