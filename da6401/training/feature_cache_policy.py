"""Whether keeping the features of frozen stages is sound and worth it: a pure function of configuration and sizes."""

from __future__ import annotations

from dataclasses import dataclass

from da6401.config.freeze_rules import flips_only, mixes, views_of
from da6401.config.schema import AugmentationConfig, PretrainedConfig
from da6401.data.cache.cache_folder import gigabytes

# Multiply-accumulates that must be saved for each byte that is read instead. Reading gives about 0.5 GB/s, two CPU
# cores compute about 7 G MACs/s, a GPU some T MACs/s.
WORTH = {"cpu": 20, "cuda": 5000}
BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True)
class Decision:
    """Whether epochs with so many frozen stages are fed with their features, and why."""

    cut: int  # stages
    on: bool
    reason: str
    views: int  # of each training image
    exact: bool  # the same draws as without: no augmentation, or a flip alone
    dtype: str
    rows: int
    bytes: int


def decide(
    cfg: PretrainedConfig,
    augmentation: AugmentationConfig,
    *,
    cut: int,
    epochs: int,
    train: int,
    validation: int,
    numbers: int,
    macs: int,
    limit_bytes: int,
    device: str,
) -> Decision:
    """The decision for the epochs in which ``cut`` stages are frozen.

    Args:
        epochs: how many those are.
        train, validation: images of each split.
        numbers: values that the last frozen stage gives for an image.
        macs: multiply-accumulates of the frozen stages for an image.
        device: cpu or cuda.
    """
    views = views_of(cfg, augmentation)
    plain = augmentation == AugmentationConfig()
    rows = train * views + validation
    a_row = numbers * BYTES[cfg.feature_dtype]
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
    kept = f"features of {cut} frozen stages are kept: {rows:,} rows of {numbers:,}, {gigabytes(size)}, {kind}"
    if cfg.feature_cache == "on":
        return decided(True, f"{kept} (model.feature_cache=on)")
    if not plain and views == 1:
        return decided(False, "one plain view would lose the augmentation; model.feature_views=4 keeps four")
    if size > limit_bytes:
        return decided(False, f"{gigabytes(size)} are more than the cache's limit of {gigabytes(limit_bytes)}")
    if epochs * (train + validation) < rows:
        return decided(False, f"{epochs} epochs compute less than the {views} views that would be kept")
    if macs < WORTH[device] * a_row:
        return decided(False, f"reading {a_row:,} bytes an image is no faster than {macs:,} multiply-accumulates")
    saved = epochs * (train + validation) / rows
    return decided(True, f"{kept} ({saved:.1f} x less to compute in this run, all of it in those that follow)")
