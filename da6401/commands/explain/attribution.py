"""Which parts of an image a network answers to: guided backpropagation, gradients and Grad-CAM.

All of it is for a model in eval mode whose stages are not frozen (`freeze(0)`): no gradient flows through frozen ones.
"""

# B batch, C channels, H height, W width, K classes, D dimensions of a layer's output without the batch

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode

from da6401.models.cnn import ConvBlock
from da6401.models.stages import StagedModel

RECTIFIERS = ("relu", "relu_", "relu6")
# Smooth or signed nonlinearities, by the name of torch's function: behind these a negative gradient is no sign that
# something speaks against the neuron, so there is nothing that guided backpropagation could rightly leave out.
OTHERS = {
    *("leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "softplus"),
    *("tanh", "hardtanh", "sigmoid", "hardsigmoid"),
}
NEITHER_MAPS = (nn.MaxPool2d, nn.AvgPool2d, nn.Dropout2d)  # they make the maps before them coarser, or pass them on


class _GuidedRectifier(torch.autograd.Function):
    """min(max(x, 0), top); back through it go positive gradients only, and only where it let the input through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < top))
        return x.clamp(0, top)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        (passed,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradients[0].clamp(min=0) * passed, None


class Nonlinearities(TorchFunctionMode):
    """Within the block it collects the other nonlinearities that are called; `guided` rectifies the way back too.

    It sees the functions and not the modules: GoogLeNet and Inception call F.relu, on which a module's hook does
    nothing and says nothing. A rectifier's result is always a new tensor, also where the call is in place.
    """

    def __init__(self, *, guided: bool) -> None:
        super().__init__()
        self.guided = guided
        self.others: set[str] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name, top = getattr(func, "__name__", ""), float("inf")
        if name in ("hardtanh", "hardtanh_"):
            low, high = (*args[1:3], kwargs.get("min_val", -1.0), kwargs.get("max_val", 1.0))[:2]
            name, top = ("relu6", high) if low == 0 else ("hardtanh", top)  # nn.ReLU6 calls hardtanh
        elif name == "relu6":
            top = 6.0
        if name not in RECTIFIERS:
            self.others |= {name.removesuffix("_")} & OTHERS
        if name not in RECTIFIERS or not self.guided:
            return func(*args, **kwargs)
        return _GuidedRectifier.apply(args[0] if args else kwargs["input"], top)


@torch.no_grad()
def other_nonlinearities(model: nn.Module, images_BCHW: Tensor) -> list[str]:
    """The nonlinearities of a forward pass that are no rectifiers, by torch's names, sorted; [] allows guidance."""
    with Nonlinearities(guided=False) as seen:
        model(images_BCHW)
    return sorted(seen.others)


@dataclass(frozen=True)
class MapLayer:
    """A module that all of the image's information passes as a set of feature maps."""

    name: str  # within the model's stages, such as block5.activation
    module: nn.Module
    channels: int
    height: int
    width: int


@torch.no_grad()
def last_maps(model: StagedModel, images_BCHW: Tensor, *, least: int, before_ceiling: bool) -> MapLayer | None:
    """The last convolution's maps of at least `least` x `least` places, after norm, activation and shortcut.

    Where no map is so large, the last convolution's. None for a transformer, whose one convolution cuts the patches,
    and where the stages give no maps: a network of dense layers, or a module of a plugin that is one stage.
    `before_ceiling` takes what goes into a ReLU6: those whom an image excites most reach 6, where no gradient is left.
    """
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        return None
    layers: list[MapLayer] = []

    def record(name: str) -> Callable[[nn.Module, object, object], None]:
        def keep(module: nn.Module, _: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                layers.append(MapLayer(name, module, *output.shape[1:]))

        return keep

    left_out = (*NEITHER_MAPS, nn.ReLU6) if before_ceiling else NEITHER_MAPS
    path = takewhile(lambda named: not isinstance(named[1], nn.AdaptiveAvgPool2d), _path("", model.stages))
    handles = [module.register_forward_hook(record(name)) for name, module in path if not isinstance(module, left_out)]
    try:
        model(images_BCHW[:1])
    finally:
        for handle in handles:
            handle.remove()
    large = [layer for layer in layers if min(layer.height, layer.width) >= least]
    return (large or layers)[-1] if layers else None


def _path(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that follow one another; blocks with branches are one, or their maps would be a branch's only."""
    if isinstance(module, (nn.ModuleDict, nn.Sequential, ConvBlock)):
        for child_name, child in module.named_children():
            yield from _path(f"{name}.{child_name}".lstrip("."), child)
    else:
        yield name, module


class Call(NamedTuple):
    """One call of a module in a forward pass."""

    module: nn.Module
    output: Tensor


@torch.no_grad()
def calls_of(kind: type[nn.Module], model: nn.Module, images_BCHW: Tensor) -> list[Call]:
    """The calls of all modules of a kind in a forward pass, in their order, which need not be that of registration."""
    calls: list[Call] = []

    def keep(module: nn.Module, _: object, output: Tensor) -> None:
        calls.append(Call(module, output.clone()))  # the next module may work in place

    handles = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, kind)]
    try:
        model(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return calls


@torch.no_grad()
def output_layer(model: nn.Module, image_1CHW: Tensor) -> nn.Linear | None:
    """The linear layer whose outputs are the logits, None where the model ends in another way."""
    calls = calls_of(nn.Linear, model, image_1CHW)
    layer = calls[-1].module if calls else None
    is_called_once = sum(call.module is layer for call in calls) == 1
    if layer is None or not is_called_once or not torch.equal(calls[-1].output, model(image_1CHW)):
        return None
    assert isinstance(layer, nn.Linear)
    return layer


def layer_output(model: nn.Module, layer: nn.Module, images_BCHW: Tensor) -> Tensor:
    """What the layer, a part of the model or the model itself, gives for these images."""
    return _outputs(model, layer, images_BCHW)[0]


def _outputs(model: nn.Module, layer: nn.Module, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs of the layer and of the model."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()  # the next module may work in place

    handle = layer.register_forward_hook(keep)
    try:
        answer = model(images_BCHW)
    finally:
        handle.remove()
    assert len(outputs) == 1, "a module that is called once"
    return outputs[0], answer


@torch.no_grad()
def strongest_neurons(model: nn.Module, layer: nn.Module, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """For each image in turn the neuron (channel, row, column) that it excites most, of the channels not yet taken.

    Returns:
        Indices (B, 3), and the neurons' values (B,). More images than channels: then channels are taken again.
    """
    maps_BCHW = layer_output(model, layer, images_BCHW)
    peaks_BC, places_BC = maps_BCHW.flatten(2).max(2)
    free_C = torch.ones(peaks_BC.shape[1], dtype=torch.bool)
    chosen = []
    for peaks_C, places_C in zip(peaks_BC, places_BC, strict=True):
        if not free_C.any():
            free_C[:] = True
        channel = int(peaks_C.masked_fill(~free_C, -torch.inf).argmax())
        free_C[channel] = False
        row, column = divmod(int(places_C[channel]), maps_BCHW.shape[3])
        chosen.append([channel, row, column])
    index_B3 = torch.tensor(chosen)
    return index_B3, maps_BCHW[(torch.arange(len(images_BCHW)), *index_B3.T)]


def input_gradients(
    model: nn.Module, layer: nn.Module, images_BCHW: Tensor, index_BD: Tensor, *, guided: bool
) -> Tensor:
    """The gradient (B, C, H, W) of one number of the layer's output an image, with respect to that image.

    Args:
        layer: a part of the model, or the model itself for a class's logit.
        index_BD: which number of each image's output, (channel, row, column) or (class,).
        guided: guided backpropagation (arXiv 1412.6806): each rectifier on the way back passes positive gradients
            only. Means something only where `other_nonlinearities` is empty.
    """
    images_BCHW = images_BCHW.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        with Nonlinearities(guided=True) if guided else nullcontext():
            output = layer_output(model, layer, images_BCHW)
        total = output[(torch.arange(len(images_BCHW)), *index_BD.T)].sum()
        (gradient_BCHW,) = torch.autograd.grad(total, images_BCHW)
    return gradient_BCHW


def grad_cam(model: nn.Module, layer: nn.Module, images_BCHW: Tensor, classes_B: Tensor) -> Tensor:
    """Grad-CAM (arXiv 1610.02391) of each image's class: evidence for it, >= 0, enlarged to the image: (B, H, W)."""
    with torch.enable_grad():
        maps_BCHW, logits_BK = _outputs(model, layer, images_BCHW.detach().clone().requires_grad_(True))
        total = logits_BK.gather(1, classes_B[:, None]).sum()
        (gradients_BCHW,) = torch.autograd.grad(total, maps_BCHW)
    heat_B1HW = (gradients_BCHW.mean((2, 3), keepdim=True) * maps_BCHW.detach()).sum(1, keepdim=True).relu()
    return nn.functional.interpolate(heat_B1HW, images_BCHW.shape[2:], mode="bilinear")[:, 0]


def patch_sums(heat_BHW: Tensor, patch: int) -> Tensor:
    """The sum over each patch x patch square, at every pixel of it; the sides are multiples of `patch`."""
    sums = nn.functional.avg_pool2d(heat_BHW[:, None], patch) * patch**2
    return sums.repeat_interleave(patch, 2).repeat_interleave(patch, 3)[:, 0]
