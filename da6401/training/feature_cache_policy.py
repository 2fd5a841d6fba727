"""Whether to keep the features of frozen stages: a pure function of the configuration and of sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from da6401.config.freeze_rules import flips_only, is_plain, mixes, views_of
from da6401.config.schema import AugmentationConfig, DataConfig, FolderConfig, PretrainedConfig, RunConfig
from da6401.data.cache.cache_folder import gigabytes
from da6401.data.image_sets import TrainingData
from da6401.data.sources import reads_files
from da6401.models.counts import Counts
from da6401.models.freezing import epochs_at, freeze_plan

# Multiply-accumulates that must be saved for each byte that is read instead. Reading gives about 0.5 GB/s, two CPU
# cores compute about 7 G MACs/s, a GPU some T MACs/s.
WORTHWHILE = {"cpu": 20, "cuda": 5000}
BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True)
class Decision:
    """Whether the epochs with so many frozen stages use their features, and why."""

    cut: int  # stages
    on: bool
    reason: str
    views: int  # of each training image
    exact: bool  # the same draws as without: no augmentation, or a flip alone
    dtype: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class Costs:
    """What the epochs with ``cut`` frozen stages compute, and what would have to be stored instead."""

    cut: int
    epochs: int
    train: int  # images of the split
    validation: int
    numbers: int  # values that the last frozen stage gives for an image
    macs: int  # multiply-accumulates of the frozen stages for an image


def decisions_of(
    cfg: RunConfig, data: TrainingData, counts: Counts, *, stage_names: Sequence[str], device: str
) -> list[Decision]:
    """A decision for each number of frozen stages in a run's schedule, in the order of its epochs.

    Args:
        device: cpu or cuda.
    """
    if not isinstance(cfg.model, PretrainedConfig):
        return []
    numbers = [0, *map(math.prod, counts.stage_shapes)]
    epochs = cfg.trainer.epochs
    decisions = []
    for cut in dict.fromkeys(freeze_plan(cfg.model, epoch).depth for epoch in range(1, epochs + 1)):
        costs = Costs(
            cut, len(epochs_at(cfg.model, cut, epochs=epochs)), len(data.train.names), len(data.validation.names),
            numbers[cut], macs=sum(layer.macs for layer in counts.layers if layer.stage in stage_names[:cut]),
        )  # fmt: skip
        decisions.append(decide(cfg.model, cfg.augmentation, costs, limit_bytes=limit_bytes(cfg.data), device=device))
    return decisions


def limit_bytes(cfg: DataConfig) -> int:
    """The limit of the cache: that of the images where they are files."""
    return round((cfg if reads_files(cfg) else FolderConfig()).cache_limit_gb * 1e9)


def decide(
    cfg: PretrainedConfig, augmentation: AugmentationConfig, costs: Costs, *, limit_bytes: int, device: str
) -> Decision:
    """Whether the features are kept: where that changes nothing that was not asked for, and saves time."""
    cut, images = costs.cut, costs.train + costs.validation
    views = views_of(cfg, augmentation)
    plain = is_plain(augmentation)
    rows = costs.train * views + costs.validation
    a_row = costs.numbers * BYTES[cfg.feature_dtype]
    size = rows * a_row

    def decided(on: bool, reason: str) -> Decision:
        return Decision(cut, on, reason, views, plain or flips_only(augmentation), cfg.feature_dtype, rows, size)

    if cut == 0:
        return decided(False, "no stage is frozen")
    if cfg.feature_cache == "off":
        return decided(False, "model.feature_cache=off")
    if mixes(augmentation):
        return decided(False, "mixup and cutmix mix pixels")
    kind = "without augmentation, exact" if plain else "plain and mirrored, exact" if flips_only(augmentation) else ""
    kind = kind or f"{views} views of each training image instead of ever new ones"
    kept = f"features of {cut} frozen stages are kept: {rows:,} rows of {costs.numbers:,}, {gigabytes(size)}, {kind}"
    if cfg.feature_cache == "on":
        return decided(True, f"{kept} (model.feature_cache=on)")
    if not plain and views == 1:
        return decided(False, "one plain view would lose the augmentation; model.feature_views=4 keeps four")
    if size > limit_bytes:
        return decided(False, f"{gigabytes(size)} are more than the cache's limit of {gigabytes(limit_bytes)}")
    if costs.epochs * images < rows:
        return decided(False, f"{costs.epochs} epochs compute less than the {views} views that would be kept")
    if costs.macs < WORTHWHILE[device] * a_row:
        return decided(False, f"reading {a_row:,} bytes an image is no faster than {costs.macs:,} multiply-accumulates")
    saved = costs.epochs * images / rows
    return decided(True, f"{kept} ({saved:.1f} x less to compute in this run, all of it in those that follow)")
