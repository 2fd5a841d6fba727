"""data.fold: the parts of train and validation together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from da6401.config.schema import DigitsConfig, FolderConfig, SyntheticConfig
from da6401.data.folds import draw_folds
from da6401.data.image_sets import TrainingData
from da6401.data.sources import load_test_data, load_training_data
from da6401.errors import DataError
from tests.image_trees import image_tree


def folds_of(cfg: DigitsConfig, count: int) -> list[TrainingData]:
    import dataclasses

    return [load_training_data(dataclasses.replace(cfg, fold=f"{number}/{count}")) for number in range(1, count + 1)]


@pytest.mark.parametrize("count", [2, 5])
def test_folds_are_disjoint_cover_all_and_have_every_class_alike(count: int) -> None:
    cfg = DigitsConfig(image_size=8)
    whole, folds = load_training_data(cfg), folds_of(cfg, count)
    pool = {
        name: (int(label), whole_set.picture(row).tobytes())
        for whole_set in (whole.train, whole.validation)
        for row, (name, label) in enumerate(zip(whole_set.names, whole_set.labels_N, strict=True))
    }
    seen: Counter[str] = Counter()
    by_class = []
    for fold in folds:
        assert set(fold.train.names) | set(fold.validation.names) == set(pool)
        assert not set(fold.train.names) & set(fold.validation.names)
        seen.update(fold.validation.names)
        by_class.append(np.bincount(fold.validation.labels_N, minlength=10))
        for images in (fold.train, fold.validation):
            for row in range(0, len(images.names), 97):
                assert (int(images.labels_N[row]), images.picture(row).tobytes()) == pool[images.names[row]]
    assert set(seen.values()) == {1}
    assert set(seen) == set(pool)
    assert np.ptp(np.stack(by_class), axis=0).max() <= 1
    assert np.ptp(np.stack(by_class).sum(1)) <= 1
    assert len({fold.fingerprint for fold in (whole, *folds)}) == count + 1
    test = load_test_data(cfg, whole.class_names)
    assert not set(test.names) & set(pool)


def test_the_draw_depends_on_names_and_the_seed_alone() -> None:
    names = [f"image-{number}" for number in range(40)]
    labels = np.arange(40) % 3
    words = {"class_names": list("abc"), "folds": 4, "groups": None}
    drawn = draw_folds(names, labels, seed=0, **words)  # type: ignore[arg-type]
    order = np.random.default_rng(0).permutation(40)
    again = draw_folds([names[row] for row in order], labels[order], seed=0, **words)  # type: ignore[arg-type]
    assert np.array_equal(drawn[order], again)
    assert not np.array_equal(drawn, draw_folds(names, labels, seed=1, **words))  # type: ignore[arg-type]


def test_groups_stay_on_one_side(tmp_path: Path) -> None:
    image_tree(tmp_path / "data", splits=("train", "validation", "test"), side=16)
    cfg = FolderConfig(root=str(tmp_path / "data"), image_size=16, group_by=r"(\w+/\w+/\d+)", cache="off")
    whole = load_training_data(cfg)
    assert whole.groups is not None
    labels = np.arange(90) % 3
    groups = [f"person-{number // 5}" for number in range(90)]
    drawn = draw_folds(
        [str(number) for number in range(90)], labels, class_names=list("abc"), folds=6, seed=0, groups=groups
    )
    sides: dict[str, set[int]] = {}
    for group, fold in zip(groups, drawn.tolist(), strict=True):
        sides.setdefault(group, set()).add(fold)
    assert {len(each) for each in sides.values()} == {1}
    counts = np.array([[((drawn == fold) & (labels == label)).sum() for label in range(3)] for fold in range(6)])
    assert np.ptp(counts, axis=0).max() <= 2  # five to a group, three classes: no exact division
    folds = folds_of(cfg, 2)  # type: ignore[arg-type]
    for fold in folds:
        train, held_out = ({whole.groups[name] for name in each.names} for each in (fold.train, fold.validation))
        assert not train & held_out
        assert any("groups kept together" in note for note in fold.notes)


def test_too_few_for_so_many_folds() -> None:
    names, labels = ["a", "b", "c", "d"], np.array([0, 0, 0, 1])
    for folds, groups, message in (
        (5, None, "5 folds need at least as many images, and there are 4"),
        (3, ["x", "x", "y", "y"], r"as many groups \(data.group_by\), and there are 2"),
        (2, None, "These classes have a single image.*: two"),
        (2, ["x", "y", "x", "y"], "in a single fold, since groups stay together.*: two"),
    ):
        with pytest.raises(DataError, match=message):
            draw_folds(names, labels, class_names=["one", "two"], folds=folds, seed=0, groups=groups)


def test_a_fold_trains_on_the_same_pixels_whatever_holds_them() -> None:
    cfg = SyntheticConfig(image_size=8, classes=3, images_per_class=7)
    (first, *_) = folds_of(cfg, 3)  # type: ignore[arg-type]
    rows = torch.arange(len(first.train.names)).flip(0)
    pixels = first.train.images_NCHW[rows]
    assert pixels.shape == (len(rows), 3, 8, 8)
    assert all(np.array_equal(pixels[place].permute(1, 2, 0), first.train.picture(int(row)))
               for place, row in enumerate(rows))  # fmt: skip
