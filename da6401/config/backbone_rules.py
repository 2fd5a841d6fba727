"""Checks of a backbone's keys: how many stages it has, and which image sizes it takes."""

from __future__ import annotations

from da6401.config.schema import PretrainedConfig
from da6401.registry import BACKBONES


def backbone_problems(cfg: PretrainedConfig, image_size: int) -> list[str]:
    """Why this backbone cannot be built for square images of this side; empty if it can."""
    entry = BACKBONES[cfg.name]
    problems = []
    count = len(entry.stages)
    if not 0 <= cfg.freeze_depth <= count:
        problems.append(
            f"model.freeze_depth={cfg.freeze_depth}: {cfg.name} has {count} stages ({', '.join(entry.stages)}); "
            f"use 0..{count} (0 trains all, {count} only the head)"
        )
    if image_size < entry.min_size:
        problems.append(
            f"data.image_size={image_size}: {cfg.name} needs images of at least {entry.min_size} x {entry.min_size}; "
            f"use data.image_size>={entry.min_size} or another model"
        )
    elif image_size % entry.multiple_of:
        patch = entry.multiple_of
        below = image_size - image_size % patch
        problems.append(
            f"data.image_size={image_size}: {cfg.name} cuts images into patches of {patch} x {patch}; "
            f"use a multiple of {patch}, such as {below} or {below + patch}"
        )
    return problems
