"""The augmentations of plugins as steps: with their own keys and a generator, and checked."""

# B batch, D random numbers

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from da6401.data.batches import seeded
from da6401.plugins.registered import broken
from da6401.registry import AugmentationEntry, Step


def is_on(cfg: Any, name: str) -> bool:
    """Whether a plugin's augmentation is used: `augmentation.NAME.on`."""
    return bool(name) and bool(getattr(getattr(cfg, name, None), "on", False))


def own_step(entry: AugmentationEntry) -> Step:
    """The step of a plugin's augmentation.

    Its generator, on the CPU, follows from the images' rows of the random table: a run that resumes draws the same.
    """

    change: Any = entry.step  # of a plugin: it takes a generator in place of the table's rows

    def step(images: Tensor, draws_BD: Tensor, cfg: Any) -> Tensor:
        digest = hashlib.sha256(draws_BD.numpy().tobytes() + entry.own.encode()).digest()
        generator = seeded(int.from_bytes(digest[:7], "big"))
        return checked(entry, images, change(images.clone(), generator, getattr(cfg, entry.own)))

    return step


def checked(entry: AugmentationEntry, before: Tensor, after: Any) -> Tensor:
    """The changed images.

    Raises:
        PluginError: they are no finite images of the same shape, type and device.
    """
    if not isinstance(after, Tensor):
        raise broken("augmentation", entry.own, f"gave {type(after).__name__}, which is no tensor")
    for what in ("shape", "dtype", "device"):
        old, new = getattr(before, what), getattr(after, what)
        if old != new:
            old, new = (tuple(old), tuple(new)) if what == "shape" else (old, new)
            raise broken("augmentation", entry.own, f"gave images of {what} {new} for {old}")
    if not torch.isfinite(after).all():
        raise broken("augmentation", entry.own, "gave values that are not finite (NaN or infinity)")
    return after
