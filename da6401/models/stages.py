"""The form of every network: named stages, then a head. Freezing, caching and the summary use the same list."""

# B batch, K classes, C channels, H height, W width

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from da6401.errors import ModelError
from da6401.models.freezing import FreezePlan

NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm2d,
    nn.SyncBatchNorm,
)  # fmt: skip
PIECE = 3 * 2**18  # input values that a CPU computes at once: 5 images of 224 px, 64 of 64 px


class ParameterGroups(NamedTuple):
    """The parameters that train, by name; frozen ones are in none of the groups."""

    stages: list[dict[str, nn.Parameter]]  # one a stage, first to last
    head: dict[str, nn.Parameter]


class StagedModel(nn.Module):
    """Named stages, then a head; normalises its own input.

    The statistics of the input are saved with the weights: a checkpoint trained with one normalisation can then
    never be used with another, which would silently cost accuracy.
    """

    mean: Tensor  # (C, 1, 1)
    std: Tensor

    def __init__(
        self, *, stages: Mapping[str, nn.Module], head: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.head = head
        self.plan = FreezePlan(depth=0)
        self._kept: frozenset[str] = frozenset()  # names of the parameters that no plan unfreezes
        self._kept_modules: tuple[str, ...] = ()  # that have no other parameters
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    @property
    def stage_names(self) -> tuple[str, ...]:
        """First to last."""
        return tuple(self.stages.keys())

    def freeze(self, depth: int) -> None:
        """Freeze the first `depth` stages and let all others train.

        Raises:
            ModelError: depth is outside 0..number of stages.
        """
        self.apply_freeze_plan(FreezePlan(depth=depth))

    def keep_frozen(self) -> None:
        """Keep what has requires_grad=False now frozen under every plan; modules without other parameters stay in eval
        mode."""
        parameters = self.named_parameters(remove_duplicate=False)
        self._kept = frozenset(name for name, parameter in parameters if not parameter.requires_grad)
        self._kept_modules = tuple(name for name, module in self.named_modules() if name and _is_frozen(module))
        self.train(self.training)

    def apply_freeze_plan(self, plan: FreezePlan) -> None:
        """Set requires_grad and eval mode from the plan; frozen stages stay in eval mode.

        Raises:
            ModelError: the plan is for another number of stages.
        """
        names = self.stage_names
        if not (0 <= plan.depth <= len(names) and 0 <= plan.last <= len(names) - plan.depth):
            raise ModelError(
                f"freeze_depth={plan.depth} (and freeze_last={plan.last}): the stages are {', '.join(names)}; "
                f"use 0..{len(names)}"
            )
        self.plan = plan
        kept = {id(each) for name, each in self.named_parameters(remove_duplicate=False) if name in self._kept}
        for stage, trains in zip(self.stages.values(), self._training_stages(), strict=True):
            for module in stage.modules():
                is_trained = trains and (not plan.norms_only or isinstance(module, NORMS))
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(is_trained and id(parameter) not in kept)
                    if not parameter.requires_grad:
                        parameter.grad = None  # an optimizer would still step on a gradient from before
        self.train(self.training)

    def _training_stages(self) -> list[bool]:
        """Of each stage, whether something of it trains."""
        count = len(self.stages)
        return [self.plan.depth <= position < count - self.plan.last for position in range(count)]

    def train(self, mode: bool = True) -> Self:
        """Switch the mode of all that is not frozen: otherwise frozen BatchNorm would update its statistics."""
        self.training = mode
        self.head.train(mode)
        for stage, trains in zip(self.stages.values(), self._training_stages(), strict=True):
            if trains or stage.training:  # a deep network has many modules: those in eval mode already are skipped
                stage.train(mode and trains)
        for name in self._kept_modules:
            self.get_submodule(name).eval()
        return self

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Logits (B, K) of RGB images (B, C, H, W) with values in 0..1, or of stage `first`'s input where it is > 0."""
        x = self.normalise(x) if first == 0 else x
        logits_BK: Tensor = self.head(self.run_stages(x, first, len(self.stages)))
        return logits_BK

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """The images, 0..1, normalised with the mean and the deviation that this network was trained with."""
        assert images_BCHW.is_floating_point(), "images are floats in 0..1, not bytes"
        return (images_BCHW - self.mean) / self.std

    def run_stages(self, x: Tensor, first: int, last: int) -> Tensor:
        """The output of stages first..last-1 (counted from 0) for x, the input of stage `first`.

        No gradient flows through frozen stages, not even to x: `freeze(0)` first where one is wanted.
        """
        cut = min(max(first, self.plan.depth), last)
        if not (self.training or torch.is_grad_enabled()):
            cut = last  # without gradients or batch statistics each image is computed on its own

        def through(x: Tensor, first: int, last: int) -> Tensor:
            for stage in islice(self.stages.values(), first, last):
                x = stage(x)
            return x

        if cut > first:
            with torch.no_grad():
                x = in_pieces(lambda piece: through(piece, first, cut), x)
        return through(x, cut, last)

    def parameter_groups(self) -> ParameterGroups:
        """The trained parameters of each stage and those of the head, so that each can have its own rate."""

        def trained(prefix: str) -> dict[str, nn.Parameter]:
            named = self.get_submodule(prefix).named_parameters(prefix)
            return {name: parameter for name, parameter in named if parameter.requires_grad}

        return ParameterGroups(stages=[trained(f"stages.{name}") for name in self.stage_names], head=trained("head"))

    def trainable_state(self) -> dict[str, Tensor]:
        """What training can change under the present plan: parameters, and the statistics of stages that train."""
        parts = [
            f"stages.{name}" for name, trains in zip(self.stage_names, self._training_stages(), strict=True) if trains
        ]
        inside = tuple(f"{part}." for part in [*parts, "head"])
        named = self.named_parameters(remove_duplicate=False)
        frozen = {name for name, parameter in named if not parameter.requires_grad}
        state = self.state_dict()
        return {name: tensor for name, tensor in state.items() if name.startswith(inside) and name not in frozen}


def _is_frozen(module: nn.Module) -> bool:
    """Whether it has parameters, none of which trains."""
    trains = [parameter.requires_grad for parameter in module.parameters()]
    return bool(trains) and not any(trains)


def in_pieces(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function that computes each image on its own; on a CPU to few images at a time, which fit its caches.

    The activations of a large batch would go to main memory and back between any two layers: on two cores
    efficientnet_lite0 at 224 px then takes twice as long.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    if x.device.type != "cpu" or traced or x.numel() <= PIECE:
        return function(x)
    size = max(1, PIECE // x[0].numel())
    return torch.cat([function(piece) for piece in torch.split(x, size)])


def output_layer(features: int, num_classes: int) -> nn.Linear:
    """The last layer, with small weights and bias 0: all classes start about equally likely, the loss near ln K."""
    layer = nn.Linear(features, num_classes)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
