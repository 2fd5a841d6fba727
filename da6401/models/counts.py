"""Parameters and multiply-accumulates (MACs), layer by layer and in closed form.

A MAC is one multiplication and its addition; the additions of biases, batch norm, activations and pools count
nothing, as in the assignment's closed form. What counts are convolutions and products of matrices, attention's too,
as in torch.utils.flop_counter.
"""

# T tokens, E width of a token

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from da6401.errors import ConfigError
from da6401.models.operation_macs import operation_macs
from da6401.models.stages import StagedModel
from da6401.models.torch_internals import COMPILER, watch_operations

_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Conv2d, "conv"),
    (nn.Linear, "linear"),
    (nn.BatchNorm2d, "batch norm"),
    (nn.LayerNorm, "layer norm"),
    (nn.MultiheadAttention, "attention"),
)


# Layers without MACs whose output has the shape of their input. They are skipped: the meta device computes their shapes
# in Python, which takes longer than all convolutions together.
SAME_SHAPE = (nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.GELU)
SMALL = 64 * 64  # px: such an image is computed as soon as on the meta device
MODEST = 256 * 256  # px: and such a one sooner than the compiler, which the meta device needs, is imported


@dataclass(frozen=True)
class LayerCount:
    """One layer for one image."""

    name: str  # its path in the model
    kind: str  # conv, linear, batch norm, layer norm, attention, or other: parameters or MACs outside all of these
    output_shape: tuple[int, ...]  # without the batch; of a layer that runs twice, the last
    parameters: int
    macs: int
    trained: int  # of the parameters
    stage: str  # the stage's name, "head", or "" for a network without stages

    @property
    def trainable(self) -> bool:
        """Whether something of it trains."""
        return self.trained > 0


@dataclass(frozen=True)
class StageCount:
    """One stage, or the head, for one image."""

    name: str
    frozen: bool  # nothing in it trains
    parameters: int
    trainable_parameters: int
    macs_share: float  # of the whole network's MACs, 0..1


class Counts(NamedTuple):
    """The layers of a model and the shapes of its stages, from one forward pass."""

    layers: list[LayerCount]
    stage_shapes: list[tuple[int, ...]]  # output of each stage for one image, without the batch, first to last


def count_layers(model: nn.Module, image_size: int | tuple[int, int]) -> list[LayerCount]:
    """Every layer that has parameters or MACs, in the order in which the model lists them, for one RGB image."""
    return count(model, image_size).layers


def count(model: nn.Module, image_size: int | tuple[int, int]) -> Counts:
    """The layers of count_layers and the stages' shapes.

    The shapes come from one forward pass of an image of zeros, which changes neither the model nor the random state. A
    larger image is on the meta device, which computes nothing: any size takes milliseconds once the compiler is there.
    The MACs come from the operations of this pass, for many networks multiply outside their convolutions and linear
    layers. Each operation counts for the innermost module that runs: a module without parameters has a row of its own
    if it multiplies. nn.MultiheadAttention has one row: 4 T E^2 for the projections of queries, keys, values and
    output, and 2 T^2 E for the scores (QK^T) and the weighted sum of the values.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    modules = _modules(model)
    macs = dict.fromkeys(modules, 0)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(modules, ())
    running = [""]  # names, the innermost last

    def charge(operation: Any, arguments: tuple[Any, ...], result: Any) -> None:
        macs[running[-1]] += operation_macs(operation.name(), arguments, result)

    def watch(name: str, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        def begin(_: nn.Module, inputs: Any) -> None:
            running.append(name)

        def end(_: nn.Module, inputs: Any, output: Any) -> None:
            running.pop()
            result = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(result, Tensor):
                shapes[name] = tuple(result.shape[1:])

        return [module.register_forward_pre_hook(begin, prepend=True), module.register_forward_hook(end)]

    stage_shapes: list[tuple[int, ...]] = []
    stages = model.stages.values() if isinstance(model, StagedModel) else ()
    hooks = [stage.register_forward_hook(lambda _, x, y: stage_shapes.append(tuple(y.shape[1:]))) for stage in stages]
    hooks += [hook for name, module in modules.items() for hook in watch(name, module)]
    modes = [(module, module.training) for module in model.modules()]
    same = [module for module, _ in modes if isinstance(module, SAME_SHAPE)]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # it runs attention as one operation, without its products
        for module, _ in modes:
            module.training = False
        for module in same:
            vars(module)["forward"] = _unchanged
        tensors = {name: tensor.detach() for name, tensor in _tensors(model).items()}
        small = height * width <= (SMALL if COMPILER in sys.modules else MODEST)
        device = "cpu" if small and not any(tensor.is_meta for tensor in tensors.values()) else "meta"
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        with torch.no_grad(), watch_operations(charge):
            functional_call(model, tensors, (torch.zeros(1, 3, height, width, device=device),))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, training in modes:
            module.training = training
        for module in same:
            del vars(module)["forward"]
        for hook in hooks:
            hook.remove()
    counts = [
        LayerCount(
            name=name,
            kind=_kind(layer),
            output_shape=shapes[name],
            parameters=sum(parameter.numel() for parameter in _own_parameters(layer)),
            macs=macs[name],
            trained=sum(parameter.numel() for parameter in _own_parameters(layer) if parameter.requires_grad),
            stage=_stage(name),
        )
        for name, layer in modules.items()
        if macs[name] or _own_parameters(layer)
    ]
    return Counts(counts, stage_shapes)


def closed_form(
    *,
    height: int,
    width: int,
    filters: Sequence[int],
    kernels: Sequence[int],
    batch_norm: bool,
    dense_width: int,
    num_classes: int,
) -> tuple[int, int]:
    """Parameters and MACs of the plain CNN by the assignment's formula, summed block by block: no network is built.

    The formula for one m and k, H and W multiples of 32, is the special case; here pools round down, so any size
    that fits will do. dense_width=0 leaves the dense layer out.
    """
    parameters = macs = 0
    channels = 3
    for count, kernel in zip(filters, kernels, strict=True):
        weights = channels * kernel * kernel * count
        parameters += weights + count + (2 * count if batch_norm else 0)
        macs += height * width * weights
        channels, height, width = count, height // 2, width // 2
    features = channels * height * width
    for neurons in [dense_width, num_classes] if dense_width else [num_classes]:
        parameters += neurons * (features + 1)
        macs += neurons * features
        features = neurons
    return parameters, macs


def count_stages(counts: Sequence[LayerCount]) -> list[StageCount]:
    """The layers summed by stage, the head last."""
    macs = sum(layer.macs for layer in counts)
    stages = []
    for name in dict.fromkeys(layer.stage for layer in counts):
        inside = [layer for layer in counts if layer.stage == name]
        trained = sum(layer.trained for layer in inside)
        share = sum(layer.macs for layer in inside) / max(macs, 1)
        stages.append(StageCount(name, trained == 0, sum(layer.parameters for layer in inside), trained, share))
    return stages


def check_batch_norm(counts: Sequence[LayerCount], *, batch_size: int) -> None:
    """Refuse batches on which batch norm cannot train: a single value has no variance.

    Raises:
        ConfigError: a batch norm that trains would see one image with a map of 1 x 1.
    """
    alone = [
        layer
        for layer in counts
        if layer.kind == "batch norm" and layer.trainable and math.prod(layer.output_shape[1:]) == 1
    ]
    if batch_size == 1 and alone:
        name = alone[0].name.removeprefix("stages.")
        raise ConfigError(
            [
                f"trainer.batch_size=1: batch norm needs more than one value, and {name} has a map of 1 x 1 for an "
                "image; use trainer.batch_size>=2, or a larger data.image_size"
            ]
        )


def describe(counts: Sequence[LayerCount]) -> str:
    """The table printed before training: each layer, the totals, and each stage: its state, its share of the MACs."""
    rows = [("layer", "kind", "output", "parameters", "MACs", "")]
    for layer in counts:
        shape = " x ".join(map(str, layer.output_shape))
        state = "" if layer.trainable or not layer.parameters else "frozen"
        name = layer.name.removeprefix("stages.")
        rows.append((name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.macs:,}", state))
    stages = count_stages(counts)
    parameters = sum(stage.parameters for stage in stages)
    trained = sum(stage.trainable_parameters for stage in stages)
    macs = sum(layer.macs for layer in counts)
    lines = [*_aligned(rows, "lllrrl"), ""]
    lines.append(f"parameters {parameters:,}, trained {trained:,}; {macs:,} multiply-accumulates an image")
    table = [("stage", "", "parameters", "trained", "share of MACs", "up to here")]
    reached = 0.0
    for stage in stages:
        reached += stage.macs_share
        state = "frozen" if stage.frozen else "trained" if stage.trainable_parameters == stage.parameters else "partly"
        numbers = (
            f"{stage.parameters:,}",
            f"{stage.trainable_parameters:,}",
            f"{stage.macs_share:.4f}",
            f"{reached:.4f}",
        )
        table.append((stage.name, state, *numbers))
    return "\n".join([*lines, *_aligned(table, "llrrrr")])


def _unchanged(x: Tensor) -> Tensor:
    return x


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules by name; an attention module stands for the projections inside it."""
    modules: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(inside) if inside else False:
            continue
        modules[name] = module
        if isinstance(module, nn.MultiheadAttention):
            inside = (*inside, f"{name}.")
    return modules


def _own_parameters(layer: nn.Module) -> list[nn.Parameter]:
    return list(layer.parameters(recurse=isinstance(layer, nn.MultiheadAttention)))


def _kind(layer: nn.Module) -> str:
    return next((kind for known, kind in _KINDS if isinstance(layer, known)), "other")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _stage(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "stages" and len(parts) > 1:
        return parts[1]
    return "head" if parts[0] == "head" else ""


def _aligned(rows: Sequence[tuple[str, ...]], sides: str) -> list[str]:
    """Rows as text columns two spaces apart; sides has l or r for each column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(sides))]
    return [
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(row, widths, sides, strict=True)
        ).rstrip()
        for row in rows
    ]
