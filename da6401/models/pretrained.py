"""Part B: builds stages with weights and a new head from a backbone's entry (backbones.py)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from da6401.errors import ModelError
from da6401.models import weights
from da6401.models.dropout import Dropout
from da6401.models.stages import StagedModel, output_layer
from da6401.registry import BACKBONES, BackboneEntry


def build_backbone(*, name: str, source: str, num_classes: int, image_size: int, dropout: float) -> StagedModel:
    """The backbone's stages with weights from `source` (imagenet, none or a file) and a new head.

    Raises:
        ModelError: the weights are not available, or do not fit.
    """
    entry = BACKBONES[name]
    network = entry.make(image_size)
    if source != "none":
        state = weights.read(_imagenet_file(name, entry) if source == "imagenet" else Path(source))
        _load(network, state, entry, source=source, image_size=image_size)
    return staged(name, network, num_classes=num_classes, dropout=dropout)


def check_weights(*, name: str, source: str, image_size: int, fetch: bool) -> None:
    """Raise what build_backbone would raise about these weights, without reading their values.

    Args:
        fetch: True downloads now what has to be downloaded; False assumes that it is right.

    Raises:
        ModelError: the weights are not available, or do not fit.
    """
    entry = BACKBONES[name]
    if source != "imagenet":
        with torch.device("meta"):
            network = entry.make(image_size)
        _load(network, weights.read(Path(source), device="meta"), entry, source=source, image_size=image_size)
    elif fetch or not entry.imagenet:
        _imagenet_file(name, entry)


def staged(name: str, network: nn.Module, *, num_classes: int, dropout: float) -> StagedModel:
    """A whole network split into its stages, with a new head in place of its own."""
    entry = BACKBONES[name]
    mean, std = entry.statistics
    stages = dict(zip(entry.stages, entry.cut(network), strict=True))
    head = nn.Sequential(Dropout(dropout), output_layer(entry.features, num_classes))
    return StagedModel(stages=stages, head=head, mean=mean, std=std)


def _imagenet_file(name: str, entry: BackboneEntry) -> Path:
    """The file of the ImageNet weights, downloaded if it is not on this machine."""
    if entry.imagenet_file is not None:
        return entry.imagenet_file()
    if not entry.imagenet:
        raise ModelError(
            f"model.weights=imagenet: {name} has no ImageNet weights; give a state_dict file, or train from scratch "
            "with model.weights=none"
        )
    if "://" in entry.imagenet:
        return weights.fetched(entry.imagenet)
    from torchvision.models import get_weight

    return weights.fetched(get_weight(entry.imagenet).url)


def _load(network: nn.Module, state: dict[str, Tensor], entry: BackboneEntry, *, source: str, image_size: int) -> None:
    state = weights.unwrapped(state, network, source=source)
    if entry.adapt is not None:
        state = entry.adapt(state, source, image_size)
    weights.load(network, state, replaced=entry.replaced, source=source)
