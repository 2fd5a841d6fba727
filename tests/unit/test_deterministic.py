"""trainer.deterministic on CUDA: no operation of a training step is on torch's list of those that would be refused.

There need be no GPU: the step is made on the meta device, which computes nothing but goes through the same operations,
backward and optimizer included.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from da6401.config.schema import AugmentationConfig, OptimizerConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.data.augment.mixing import mix
from da6401.data.batches import seeded
from da6401.models.freezing import FreezePlan
from da6401.models.pooling import AdaptiveAvgPool2d, pooled
from da6401.models.pretrained import staged
from da6401.models.stages import StagedModel
from da6401.registry import BACKBONES
from da6401.training.optim import MovingAverage, build_optimizer
from tests.networks import cnn

# What torch.use_deterministic_algorithms says that it refuses, and the operations that are meant, by the beginnings of
# their names. Of classes "when attempting to differentiate" it is the backward.
REFUSED: dict[str, tuple[str, ...]] = {
    "torch.nn.AvgPool3d": ("avg_pool3d_backward",),
    "torch.nn.AdaptiveAvgPool2d": ("_adaptive_avg_pool2d_backward", "adaptive_avg_pool2d_backward"),
    "torch.nn.AdaptiveAvgPool3d": ("_adaptive_avg_pool3d_backward", "adaptive_avg_pool3d_backward"),
    "torch.nn.AdaptiveMaxPool2d": ("adaptive_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool2d": ("fractional_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool3d": ("fractional_max_pool3d_backward",),
    "torch.nn.MaxUnpool1d": ("max_unpool",),
    "torch.nn.MaxUnpool2d": ("max_unpool",),
    "torch.nn.MaxUnpool3d": ("max_unpool",),
    "torch.nn.functional.interpolate": tuple(
        f"{prefix}upsample_{mode}{kind}_backward"
        for prefix in ("", "_")
        for mode in ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")
        for kind in ("", "_aa")
    ),
    "torch.nn.ReflectionPad1d": ("reflection_pad1d_backward",),
    "torch.nn.ReflectionPad2d": ("reflection_pad2d_backward",),
    "torch.nn.ReflectionPad3d": ("reflection_pad3d_backward",),
    "torch.nn.NLLLoss": ("nll_loss2d",),  # of one label an image, (B, K) logits, it is another operation
    "torch.nn.CTCLoss": ("_ctc_loss", "_cudnn_ctc_loss"),
    "torch.nn.EmbeddingBag": ("_embedding_bag",),
    "torch.Tensor.put_": ("put_", "put"),
    "torch.histc": ("histc",),
    "torch.bincount": ("bincount",),
    "torch.median": ("median", "nanmedian"),
    "torch.nn.functional.grid_sample": ("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    "torch.Tensor.scatter_reduce": ("scatter_reduce",),
    "torch.Tensor.resize_": (),  # of quantized tensors alone
    "torch.cumsum": ("cumsum",),  # refused by older versions
    "torch.kthvalue": ("kthvalue",),
}
FORBIDDEN = tuple(sorted({name for names in REFUSED.values() for name in names}))
IMAGES, CLASSES = 4, 3


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The names of all operations that are run, backward ones included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def refused(names: Iterable[str]) -> set[str]:
    """Those of the operations that CUDA has no deterministic form of."""
    return {name for name in names if any(re.fullmatch(f"{each}(_?out|_\\w*)?", name) for each in FORBIDDEN)}


def operations_of_a_step(model: nn.Module, size: int) -> set[str]:
    """What the forward pass, the loss and its gradient run."""
    model = model.to("meta", memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.empty(IMAGES, 3, size, size, device="meta").contiguous(memory_format=torch.channels_last)
    labels, weights = torch.empty(IMAGES, dtype=torch.int64, device="meta"), torch.empty(CLASSES, device="meta")
    with _Recorder() as recorder:
        torch.autograd.backward(F.cross_entropy(model(images), labels, weights, label_smoothing=0.1))
    names: set[str] = recorder.names
    return names


def backbone(name: str, size: int) -> StagedModel:
    with torch.device("meta"):
        return staged(BACKBONES[name], BACKBONES[name].make(size), num_classes=CLASSES, dropout=0.2)


def sizes_of(name: str) -> tuple[int, int]:
    """The smallest images, and large ones, both odd where the backbone takes those."""
    facts = BACKBONES[name]
    step = facts.multiple_of
    smallest = max(facts.min_size, 33) // step * step + (step if max(facts.min_size, 33) % step else 0)
    return smallest, 299 // step * step


def test_the_list_is_torchs_own() -> None:
    text = torch.use_deterministic_algorithms.__doc__ or ""
    listed = text.partition("operations will throw a")[2].partition("In addition")[0]
    names = set(re.findall(r"\* :(?:class|func):`([\w.]+)`", listed))
    assert len(names) > 15, "torch tells it in other words now: read it again"
    assert names <= set(REFUSED), "torch refuses more than before: name the operations that are meant"


def test_the_recorder_sees_what_is_refused() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(196, CLASSES))
    assert refused(operations_of_a_step(plain, 32)) == {"_adaptive_avg_pool2d_backward"}
    grown = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, CLASSES, 16), nn.Flatten())
    grown = nn.Sequential(nn.Conv2d(3, 3, 1), *grown)
    assert refused(operations_of_a_step(grown, 8)) == {"upsample_bilinear2d_backward"}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_trains_deterministically(name: str) -> None:
    for size in sizes_of(name):
        seen = operations_of_a_step(backbone(name, size), size)
        assert {"convolution_backward", "nll_loss_backward"} <= seen, "nothing was differentiated"
        assert not refused(seen), f"at {size} px"


def test_frozen_stages_change_nothing() -> None:
    model = backbone("vgg16", 64)
    model.apply_freeze_plan(FreezePlan(depth=1, last=1))
    assert not refused(operations_of_a_step(model, 64))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadam", "rmsprop"])
def test_every_optimizer_clipping_and_averaging_are_deterministic(name: Any) -> None:
    model = cnn().to("meta")
    average = MovingAverage(model, [name for name, _ in model.named_parameters()], decay=0.9)
    optimizer = build_optimizer(OptimizerConfig(name=name, weight_decay=0.1), stages=[], head=model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    with _Recorder() as recorder:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update()
    assert any("lerp" in each for each in recorder.names)
    assert not refused(recorder.names)


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": "avg", "residual": True},
        {"global_pool": True, "batch_norm": False},
        *({"activation": name} for name in ("relu", "leaky_relu", "elu", "gelu", "silu", "mish", "tanh")),
    ],
)
def test_every_cnn_trains_deterministically(changes: dict[str, Any]) -> None:
    assert not refused(operations_of_a_step(cnn(dropout=0.1, block_dropout=0.1, **changes), 32))


def test_augmentation_is_deterministic() -> None:
    """On the CPU, where the operations are the same: they have no gradient, and no backward of theirs is run."""
    everything = AugmentationConfig(
        flip=0.5, crop_scale=0.5, crop_ratio=1.3, rotate=20, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1,
        erase=0.5, mixup=0.4, cutmix=0.4,
    )  # fmt: skip
    images = torch.randint(0, 256, (256, 3, 16, 16), dtype=torch.uint8)
    with _Recorder() as recorder:
        for cfg in (everything, dataclasses.replace(everything, trivial_augment=True)):
            augmented = Augmenter(cfg, count=256, generator=seeded(0))(images, torch.arange(256))
            mix(augmented, dataclasses.replace(cfg, cutmix=0.0), seeded(1))
            mix(augmented, dataclasses.replace(cfg, mixup=0.0), seeded(1))
    assert {"grid_sampler_2d", "sort"} <= recorder.names
    assert not refused(recorder.names)


# ---- the pool that stands in for torch's ------------------------------------------------------------------------


@pytest.mark.parametrize("side", [*range(1, 16), 28, 31])
@pytest.mark.parametrize("size", [1, 3, 7, (7, 2), (None, 5)])
def test_the_pool_gives_what_torchs_gives(side: int, size: Any) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, side, side + 2, requires_grad=True)
    expected = nn.AdaptiveAvgPool2d(size)(images)
    assert torch.equal(AdaptiveAvgPool2d(size)(images), expected), "on a CPU it is torch's own, bit for bit"
    assert not refused(operations_of_pool(AdaptiveAvgPool2d(size), side)), "elsewhere it is not"
    own = pooled(images, size)
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), images)
    (own_gradient,) = torch.autograd.grad((own * weights).sum(), images)
    torch.testing.assert_close(own_gradient, gradient, rtol=1e-5, atol=1e-6)


def operations_of_pool(pool: nn.Module, side: int) -> set[str]:
    images = torch.empty(2, 3, side, side + 2, device="meta", requires_grad=True)
    with _Recorder() as recorder:
        torch.autograd.backward(pool(images).sum())
    names: set[str] = recorder.names
    return names
