"""Checks of a backbone's keys: how many stages it has, and which image sizes it takes."""

from __future__ import annotations

from da6401.config.schema import PretrainedConfig
from da6401.errors import PluginError, UserError


def backbone_problems(cfg: PretrainedConfig, image_size: int) -> list[str]:
    """Why this backbone cannot be built for square images of this side; empty if it can."""
    try:
        entry = cfg.backbone
    except PluginError:
        raise  # one screen of its own
    except UserError as error:
        return [str(error)]
    problems = []
    count = len(entry.stages)
    if not 0 <= cfg.freeze_depth <= count:
        problems.append(
            f"model.freeze_depth={cfg.freeze_depth}: {cfg.label} has {count} stages ({', '.join(entry.stages)}); "
            f"use 0..{count} (0 trains all, {count} only the head)"
        )
    if image_size < entry.min_size:
        problems.append(
            f"data.image_size={image_size}: {cfg.label} needs images of at least {entry.min_size} x {entry.min_size}; "
            f"use data.image_size>={entry.min_size} or another model"
        )
    elif image_size % entry.multiple_of:
        patch = entry.multiple_of
        below = image_size - image_size % patch
        problems.append(
            f"data.image_size={image_size}: {cfg.label} cuts images into patches of {patch} x {patch}; "
            f"use a multiple of {patch}, such as {below} or {below + patch}"
        )
    elif entry.refuses is not None and (reason := entry.refuses(image_size)):
        problems.append(
            f"data.image_size={image_size}: {cfg.label} does not take such images ({reason}); "
            f"use data.image_size={entry.trained_at}, for which it was made, or another model"
        )
    return problems
