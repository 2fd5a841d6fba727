"""The optimizer over a network's parameters, its learning rate, and averages of the weights."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby

import torch
from torch import nn

from da6401.config.schema import OptimizerConfig
from da6401.registry import OPTIMIZERS


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
    return OPTIMIZERS[cfg.name].make(groups, cfg)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's rate to its own highest rate times the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


class WeightAverage:
    """An average of a model's parameters and statistics.

    Args:
        trainable: the names in the state dict of what training changes; all else stays equal to the model's.
    """

    def __init__(self, model: nn.Module, trainable: Iterable[str]) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        averages, values = self.model.state_dict(), model.state_dict()  # both share their memory with the models
        pairs = [(averages[name], values[name]) for name in trainable]
        self._pairs = list({_place(average): (average, value) for average, value in pairs}.values())

    @torch.no_grad()
    def add(self, share: float) -> None:
        """Let the model's present weights be this share of the average."""
        for average, value in self._pairs:
            if average.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)


def _place(tensor: torch.Tensor) -> Hashable:
    """What tells apart tensors that share no memory: a weight that is tied has several names, and is averaged once."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else id(tensor)


class MovingAverage(WeightAverage):
    """An exponential moving average, for validation and best.pt.

    The decay is warmed up, min(decay, (1 + n) / (10 + n)) after n updates; otherwise the initial weights dominate.
    """

    def __init__(self, model: nn.Module, trainable: Iterable[str], *, decay: float) -> None:
        super().__init__(model, trainable)
        self.decay = decay
        self.updates = 0

    def update(self) -> None:
        """Update the average with the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        self.add(1 - decay)


class EndAverage(WeightAverage):
    """The plain mean of the weights after each of the last epochs, for average.pt."""

    def __init__(self, model: nn.Module, trainable: Iterable[str]) -> None:
        super().__init__(model, trainable)
        self.epochs = 0  # that are in it

    def update(self, number: int) -> None:
        """Add the model's present weights, those after the last epochs' first, second, ... (``number``, from 1).

        Nothing is added where an epoch before it is missing: then the mean is never complete.
        """
        if number in (1, self.epochs + 1):
            self.add(1 / number)
            self.epochs = number
