"""One form for every network: named stages, then a head. Freezing, caching and the summary all cut the same list."""

# B batch, K classes, C channels, H height, W width

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from da6401.errors import ModelError


class ParameterGroups(NamedTuple):
    """The parameters that train, by name; frozen ones are in neither group."""

    backbone: dict[str, nn.Parameter]
    head: dict[str, nn.Parameter]


class StagedModel(nn.Module):
    """Named stages, then a head; normalises its own input.

    The statistics of the input are saved with the weights: a checkpoint trained on one normalisation can then
    never be read with another, which would cost accuracy without a word.
    """

    mean: Tensor  # (C, 1, 1)
    std: Tensor

    def __init__(
        self, *, stages: Mapping[str, nn.Module], head: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.head = head
        self.freeze_depth = 0
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    @property
    def stage_names(self) -> tuple[str, ...]:
        """First to last."""
        return tuple(self.stages.keys())

    def freeze(self, depth: int) -> None:
        """Freeze the first `depth` stages and let all others train: no gradient, and eval mode from now on.

        Raises:
            ModelError: depth is outside 0..number of stages.
        """
        names = self.stage_names
        if not 0 <= depth <= len(names):
            raise ModelError(f"freeze_depth={depth}: the stages are {', '.join(names)}; use 0..{len(names)}")
        self.freeze_depth = depth
        for position, stage in enumerate(self.stages.values()):
            for parameter in stage.parameters():
                parameter.requires_grad_(position >= depth)
                if position < depth:
                    parameter.grad = None  # an optimizer would still step on a gradient from before
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch the mode of all but the frozen stages, which stay in eval: else their BatchNorm would move on."""
        super().train(mode)
        for stage in islice(self.stages.values(), self.freeze_depth):
            stage.eval()
        return self

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, K) of RGB images with values in 0..1."""
        features = self.run_stages(self.normalise(images_BCHW), 0, len(self.stages))
        logits_BK: Tensor = self.head(features)
        return logits_BK

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """The images, 0..1, with the mean and the deviation that this network was made for."""
        assert images_BCHW.is_floating_point(), "images are floats in 0..1, not bytes"
        return (images_BCHW - self.mean) / self.std

    def run_stages(self, x: Tensor, first: int, last: int) -> Tensor:
        """What stages first..last-1 (counted from 0) make of x, which is stage `first`'s input.

        No gradient flows through frozen stages, not even to x: `freeze(0)` first where one is wanted.
        """
        cut = min(max(first, self.freeze_depth), last)
        with torch.no_grad():
            for stage in islice(self.stages.values(), first, cut):
                x = stage(x)
        for stage in islice(self.stages.values(), cut, last):
            x = stage(x)
        return x

    def parameter_groups(self) -> ParameterGroups:
        """The trained parameters of the stages and those of the head, so that each can have its own rate."""
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        return ParameterGroups(
            backbone={name: parameter for name, parameter in trained.items() if not name.startswith("head.")},
            head={name: parameter for name, parameter in trained.items() if name.startswith("head.")},
        )


def output_layer(features: int, num_classes: int) -> nn.Linear:
    """The last layer, with small weights and no bias: all classes start about equally likely, the loss near ln K."""
    layer = nn.Linear(features, num_classes)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
