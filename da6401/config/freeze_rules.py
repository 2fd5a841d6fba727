"""Checks of the keys of freezing and of the feature cache against each other and against the augmentation."""

from __future__ import annotations

import dataclasses

from da6401.config.schema import AugmentationConfig, PretrainedConfig
from da6401.errors import UserError


def freezing_problems(model: PretrainedConfig, augmentation: AugmentationConfig, *, epochs: int) -> list[str]:
    """Combinations that contradict each other, or that would silently switch something off."""
    problems = []
    try:
        backbone = model.backbone
    except UserError:
        return []  # backbone_problems tells it
    count = len(backbone.stages)
    if model.freeze_depth <= count < model.freeze_depth + model.freeze_last:
        problems.append(
            f"model.freeze_last={model.freeze_last}: with model.freeze_depth={model.freeze_depth} that is more than "
            f"the {count} stages of {model.label}; use 0..{count - model.freeze_depth}"
        )
    some_train = model.trains_stages
    if some_train and model.train_only == "norm" and not backbone.has_norms:
        problems.append(
            f"model.train_only=norm: {model.label} has no normalisation layers; use all, or another backbone"
        )
    if some_train and model.head_epochs >= epochs:
        problems.append(
            f"model.head_epochs={model.head_epochs}: trainer.epochs={epochs} leaves no epoch for the stages; use "
            f"fewer, or model.freeze_depth={count} to train the head alone"
        )
    if model.feature_cache == "on":
        if mixes(augmentation):
            problems.append(
                "model.feature_cache=on: augmentation.mixup and augmentation.cutmix mix pixels, and features are kept "
                "instead of pixels; set both to 0, or use model.feature_cache=auto"
            )
        elif views_of(model, augmentation) == 1 and not is_plain(augmentation):
            problems.append(
                "model.feature_cache=on: model.feature_views=1 keeps the plain images alone, without the augmentation; "
                "use model.feature_views=4 (or more), augmentation=none, or model.feature_cache=auto"
            )
    return problems


def mixes(augmentation: AugmentationConfig) -> bool:
    """Whether images are mixed with each other; features in the cache cannot be mixed like pixels."""
    return augmentation.mixup > 0 or augmentation.cutmix > 0


def is_plain(augmentation: AugmentationConfig) -> bool:
    """Whether no image is changed."""
    return dataclasses.replace(augmentation, plain_end=0.0) == type(augmentation)()


def flips_only(augmentation: AugmentationConfig) -> bool:
    """Whether the flip is the only augmentation: an image then has two views, and the cache can hold both."""
    return augmentation.flip > 0 and is_plain(dataclasses.replace(augmentation, flip=0.0))


def views_of(model: PretrainedConfig, augmentation: AugmentationConfig) -> int:
    """How many views of a training image the feature cache holds."""
    if is_plain(augmentation):
        return 1
    return 2 if flips_only(augmentation) else model.feature_views
