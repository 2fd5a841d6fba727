"""Whether features are worth keeping, which views are kept, and which of them an epoch sees."""

# B batch, N images, V views

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from da6401.config.schema import AugmentationConfig, PretrainedConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.data.batches import equal_parts, seeded
from da6401.data.resident import ChosenRows
from da6401.training.arithmetic import Arithmetic
from da6401.training.feature_cache_policy import Costs, Decision, decide
from da6401.training.frozen_features import views

NONE, FLIP = AugmentationConfig(), AugmentationConfig(flip=0.5)
ROTATE = AugmentationConfig(flip=0.5, rotate=10)


def decided(augmentation: AugmentationConfig = NONE, *, size: dict[str, Any] | None = None, **keys: Any) -> Decision:
    """GoogLeNet up to 4e at 224 px: 832 x 7 x 7 numbers, 1.38 G MACs; 100 images."""
    usual: dict[str, Any] = {
        "cut": 10, "epochs": 5, "train": 80, "validation": 20, "numbers": 832 * 49, "macs": 1_380_000_000,
        "limit_bytes": 10**9, "device": "cpu",
    }  # fmt: skip
    given = {**usual, **(size or {})}
    limits = {name: given.pop(name) for name in ("limit_bytes", "device")}
    return decide(PretrainedConfig(**keys), augmentation, Costs(**given), **limits)


@pytest.mark.parametrize(
    ("decision", "on", "views", "exact", "reason"),
    [
        (decided(), True, 1, True, r"10 frozen stages are kept: 100 rows of 40,768, 16\.3 MB, .*exact \(5\.0 x less"),
        (decided(FLIP), True, 2, True, "plain and mirrored, exact"),
        (decided(FLIP, feature_views=9), True, 2, True, "plain and mirrored, exact"),
        (decided(ROTATE), False, 1, False, "would lose the augmentation"),
        (decided(ROTATE, feature_views=4), True, 4, False, "4 views of each training image instead"),
        (decided(ROTATE, feature_views=9), False, 9, False, "5 epochs compute less than the 9 views"),
        (decided(ROTATE, feature_views=9, feature_cache="on"), True, 9, False, "feature_cache=on"),
        (decided(AugmentationConfig(mixup=0.1), feature_views=4), False, 4, False, "mix pixels"),
        (decided(feature_cache="off"), False, 1, True, r"model\.feature_cache=off"),
        (decided(size={"cut": 0}, feature_cache="on"), False, 1, True, "no stage is frozen"),
        (decided(size={"limit_bytes": 16_000_000}), False, 1, True, r"16\.3 MB are more than .* 16\.0 MB"),
        (decided(size={"limit_bytes": 16_000_000}, feature_dtype="float16"), True, 1, True, r"8\.2 MB"),
        (decided(size={"limit_bytes": 1}, feature_cache="on"), True, 1, True, "feature_cache=on"),  # the store refuses
        (decided(size={"macs": 10**6}), False, 1, True, "no faster than 1,000,000 multiply-accumulates"),
        (decided(size={"device": "cuda"}), True, 1, True, "kept"),
        (decided(size={"device": "cuda", "macs": 400_000_000}), False, 1, True, "no faster"),
    ],
)
def test_the_decision_and_its_reason(decision: Decision, on: bool, views: int, exact: bool, reason: str) -> None:
    assert (decision.on, decision.views, decision.exact) == (on, views, exact)
    assert re.search(reason, decision.reason), decision.reason
    assert decision.rows == 80 * views + 20


def test_flips_are_those_that_the_pictures_would_have_had() -> None:
    images_NCHW = torch.randint(256, (50, 3, 6, 6), dtype=torch.uint8, generator=seeded(1))
    augment = Augmenter(FLIP, count=50, generator=seeded(2))
    seen = augment(images_NCHW, torch.arange(50))
    flips = augment.mirrored(torch.arange(50))
    assert 5 < flips.sum() < 45
    plain, turned = (view(images_NCHW, torch.arange(50)) for view in views(FLIP, 2, images=50))
    assert torch.equal(plain, images_NCHW / 255)
    assert torch.equal(turned, images_NCHW.flip(3) / 255)
    assert torch.equal(torch.where(flips[:, None, None, None], turned, plain), seen)


def test_views_are_fixed_and_differ_from_each_other() -> None:
    images_NCHW = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8, generator=seeded(1))
    first, again = ([view(images_NCHW, torch.arange(4)) for view in views(ROTATE, 3, images=4)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0], images_NCHW / 255)
    assert len({view.numpy().tobytes() for view in first}) == 3


def test_rows_are_picked_by_place_in_the_type_that_they_were_computed_in() -> None:
    rows = ChosenRows(torch.arange(12, dtype=torch.float16).view(6, 2), torch.tensor([5, 0, 3]), torch.float32)
    assert rows.shape == (3, 2)
    assert rows[torch.tensor([2, 0])].tolist() == [[6.0, 7.0], [10.0, 11.0]]
    assert rows[torch.tensor([0])].dtype == torch.float32


def test_only_maps_have_a_layout() -> None:
    arithmetic = Arithmetic(torch.device("cpu"), channels_last=True)
    assert arithmetic.in_layout(torch.zeros(2, 3, 4, 5)).is_contiguous(memory_format=torch.channels_last)
    for shape in ((2, 3), (2, 3, 4)):
        tokens = torch.zeros(shape)
        assert arithmetic.in_layout(tokens) is tokens


@pytest.mark.parametrize(("size", "parts"), [(10, 1), (10, 3), (3, 8), (7, 7)])
def test_parts_are_those_of_tensor_split(size: int, parts: int) -> None:
    expected = [each.tolist() for each in torch.arange(size).tensor_split(min(parts, size))]
    assert [list(range(size))[part] for part in equal_parts(size, parts)] == expected
