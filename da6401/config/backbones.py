"""What can be said of each backbone without torch: its stages, and the images that it takes."""

from __future__ import annotations

from dataclasses import dataclass

from da6401.config.schema import Backbone, PretrainedConfig


@dataclass(frozen=True)
class BackboneFacts:
    """The stages, first to last, and the images that the backbone takes."""

    stages: tuple[str, ...]
    min_size: int = 1  # px; below it some pool or convolution has nothing left to work on
    multiple_of: int = 1  # px


_RESNET = BackboneFacts(stages=("stem", "layer1", "layer2", "layer3", "layer4"))

FACTS: dict[Backbone, BackboneFacts] = {
    "googlenet": BackboneFacts(
        stages=("conv1", "conv2", "conv3", "3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"), min_size=15
    ),
    "resnet18": _RESNET,
    "resnet50": _RESNET,
    "inception_v3": BackboneFacts(
        stages=(
            *("1a", "2a", "2b", "3b", "4a"),  # convolutions; 2b and 4a end in a pool
            *("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"),
        ),
        min_size=75,
    ),
    "vgg16": BackboneFacts(stages=("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"), min_size=32),
    "mobilenet_v3_large": BackboneFacts(
        stages=("stem", "blocks1", "blocks2", "blocks3", "blocks4", "blocks5", "blocks6", "conv_head", "hidden")
    ),
    "efficientnet_v2_s": BackboneFacts(
        stages=("stem", "blocks1", "blocks2", "blocks3", "blocks4", "blocks5", "blocks6", "conv_head")
    ),
    "convnext_tiny": BackboneFacts(stages=("stem", "stage1", "stage2", "stage3", "stage4", "norm"), min_size=32),
    "vit_b_16": BackboneFacts(
        stages=("patches", *(f"block{number}" for number in range(1, 13)), "norm"), min_size=16, multiple_of=16
    ),
    "efficientnet_lite0": BackboneFacts(
        stages=("stem", "blocks1", "blocks2", "blocks3", "blocks4", "blocks5", "blocks6", "blocks7", "conv_head")
    ),
}


def backbone_problems(cfg: PretrainedConfig, image_size: int) -> list[str]:
    """What keeps this backbone from being built for square images of this side; empty if nothing does."""
    facts = FACTS[cfg.name]
    problems = []
    count = len(facts.stages)
    if not 0 <= cfg.freeze_depth <= count:
        problems.append(
            f"model.freeze_depth={cfg.freeze_depth}: {cfg.name} has {count} stages ({', '.join(facts.stages)}); "
            f"use 0..{count} (0 trains all, {count} only the head)"
        )
    if image_size < facts.min_size:
        problems.append(
            f"data.image_size={image_size}: {cfg.name} needs images of at least {facts.min_size} x {facts.min_size}; "
            f"use data.image_size>={facts.min_size} or another model"
        )
    elif image_size % facts.multiple_of:
        patch = facts.multiple_of
        below = image_size - image_size % patch
        problems.append(
            f"data.image_size={image_size}: {cfg.name} cuts images into patches of {patch} x {patch}; "
            f"use a multiple of {patch}, such as {below} or {below + patch}"
        )
    return problems
