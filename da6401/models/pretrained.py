"""Part B: builds stages with weights and a new head from a backbone's entry (backbones.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from da6401.errors import ModelError
from da6401.models import weights
from da6401.models.dropout import Dropout
from da6401.models.stages import StagedModel, output_layer
from da6401.registry import BackboneEntry

log = logging.getLogger(__name__)


def build_backbone(
    entry: BackboneEntry, name: str, *, source: str, num_classes: int, image_size: int, dropout: float
) -> StagedModel:
    """The backbone's stages with weights from `source` (imagenet, none or a file) and a new head.

    Raises:
        ModelError: the weights are not available, or do not fit.
    """
    if entry.note:
        log.warning("%s: %s", name, entry.note)
    if source == "none":
        network = entry.make(image_size)
    elif entry.pretrained is not None:
        network = entry.pretrained(image_size, source)
    else:
        network = entry.make(image_size)
        state = weights.read(_imagenet_file(name, entry) if source == "imagenet" else Path(source))
        _load(network, state, entry, source=source, image_size=image_size)
    return staged(entry, network, num_classes=num_classes, dropout=dropout)


def check_weights(entry: BackboneEntry, name: str, *, source: str, image_size: int, fetch: bool) -> None:
    """Raise what build_backbone would raise about these weights, without reading their values where that is possible.

    Args:
        fetch: True downloads now what has to be downloaded; False assumes that it is right.

    Raises:
        ModelError: the weights are not available, or do not fit.
    """
    if entry.pretrained is not None:
        if fetch or source != "imagenet":
            entry.pretrained(image_size, source)
    elif source != "imagenet":
        network = on_meta(lambda: entry.make(image_size))
        _load(network, weights.read(Path(source), device="meta"), entry, source=source, image_size=image_size)
    elif fetch or not entry.imagenet:
        _imagenet_file(name, entry)


def staged(entry: BackboneEntry, network: nn.Module, *, num_classes: int, dropout: float) -> StagedModel:
    """A whole network split into its stages, with a new head in place of its own."""
    mean, std = entry.statistics
    training = network.training
    stages = dict(zip(entry.stages, entry.cut(network.eval()), strict=True))
    head = nn.Sequential(Dropout(dropout), output_layer(entry.features, num_classes))
    return StagedModel(stages=stages, head=head, mean=mean, std=std).train(training)


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """A network whose tensors have shapes and no values: it costs no memory, and a forward pass no time."""
    try:
        with torch.device("meta"):
            return make()
    except (RuntimeError, NotImplementedError):  # RegNet, for one, works its widths out with tensors
        return make().to("meta")


def weights_here(entry: BackboneEntry) -> bool | None:
    """Whether the ImageNet weights are on this machine; None where there are none to be had."""
    if entry.weights_here is not None:
        return entry.weights_here()
    if entry.imagenet_file is not None:
        try:
            return entry.imagenet_file().is_file()
        except ModelError:
            return False
    if not entry.imagenet:
        return None
    return weights.cached_file(_url(entry)).is_file()


def _imagenet_file(name: str, entry: BackboneEntry) -> Path:
    """The file of the ImageNet weights, downloaded if it is not on this machine."""
    if entry.imagenet_file is not None:
        return entry.imagenet_file()
    if not entry.imagenet:
        raise ModelError(
            f"model.weights=imagenet: {name} has no ImageNet weights; give a state_dict file, or train from scratch "
            "with model.weights=none"
        )
    return weights.fetched(_url(entry))


def _url(entry: BackboneEntry) -> str:
    if "://" in entry.imagenet:
        return entry.imagenet
    from torchvision.models import get_weight

    return str(get_weight(entry.imagenet).url)


def _load(network: nn.Module, state: dict[str, Tensor], entry: BackboneEntry, *, source: str, image_size: int) -> None:
    state = weights.unwrapped(state, network, source=source)
    if entry.adapt is not None:
        state = entry.adapt(state, source, image_size)
    weights.load(network, state, replaced=entry.replaced, source=source)
