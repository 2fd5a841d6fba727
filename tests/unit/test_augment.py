"""Augmentation: its own parameters for each image, the same pixels at any batch split."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from da6401.config.schema import AugmentationConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.data.augment.mixing import mix
from da6401.data.augment.random_table import BLOCK
from da6401.data.batches import batch_rows, seeded

ALL = AugmentationConfig(
    flip=0.5, crop_scale=0.4, crop_ratio=1.33, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.2,
    trivial_augment=True, erase=0.5,
)  # fmt: skip


def pictures(count: int = 12, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=seeded(1))


def augmented(cfg: AugmentationConfig, images: torch.Tensor, *, batch_size: int, seed: int = 0) -> torch.Tensor:
    augment = Augmenter(cfg, count=len(images), generator=seeded(seed))
    rows = batch_rows(len(images), batch_size, training=False)
    return torch.cat([augment(images[part], part) for part in rows])


def test_without_changes_the_pixels_are_the_images() -> None:
    images = pictures()
    assert torch.equal(augmented(AugmentationConfig(), images, batch_size=5), images / 255)


@pytest.mark.parametrize("cfg", [ALL, dataclasses.replace(ALL, rotate=10)])
@pytest.mark.parametrize("size", [16, 55])
def test_the_batch_size_does_not_change_the_pixels(cfg: AugmentationConfig, size: int) -> None:
    images = pictures(12, size)
    whole = augmented(cfg, images, batch_size=12)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for batch_size in (1, 5):
            assert torch.equal(augmented(cfg, images, batch_size=batch_size), whole)
    finally:
        torch.set_num_threads(threads)


def test_an_epoch_can_be_gone_on_with_in_its_middle() -> None:
    count = BLOCK + 10
    images = pictures(count, 4)
    cfg = AugmentationConfig(brightness=0.5)
    whole = augmented(cfg, images, batch_size=1000)
    late = torch.arange(BLOCK - 5, count)
    assert torch.equal(Augmenter(cfg, count=count, generator=seeded(0))(images[late], late), whole[late])
    assert len({row.numpy().tobytes() for row in whole}) == count


def test_a_seed_gives_one_epoch_and_another_seed_another() -> None:
    images = pictures()
    first = augmented(ALL, images, batch_size=4)
    assert torch.equal(first, augmented(ALL, images, batch_size=4))
    assert not torch.equal(first, augmented(ALL, images, batch_size=4, seed=1))


def test_each_image_has_parameters_of_its_own() -> None:
    same = pictures(1).expand(12, -1, -1, -1)
    changed = augmented(ALL, same, batch_size=12)
    assert len({row.numpy().tobytes() for row in changed}) > 6


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": 0.5}, {"crop_scale": 0.3, "crop_ratio": 1.5}, {"rotate": 45}, {"brightness": 1.0}, {"contrast": 1.0},
        {"saturation": 1.0}, {"hue": 0.5}, {"trivial_augment": True}, {"erase": 1.0},
    ],
)  # fmt: skip
def test_every_change_shows_and_stays_in_range(changes: dict[str, Any]) -> None:
    images = pictures()
    changed = augmented(AugmentationConfig(**changes), images, batch_size=12)
    assert not torch.equal(changed, images / 255)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert changed.dtype == torch.float32


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = pictures(400, 4)
    changed = augmented(AugmentationConfig(flip=0.5), images, batch_size=100)
    mirrored = [torch.equal(row, image.flip(2) / 255) for row, image in zip(changed, images, strict=True)]
    kept = [torch.equal(row, image / 255) for row, image in zip(changed, images, strict=True)]
    assert sum(mirrored) + sum(kept) == 400
    assert 150 < sum(mirrored) < 250


def test_flip_means_the_same_alone_and_inside_the_resampling() -> None:
    images = pictures(40)
    alone = augmented(AugmentationConfig(flip=0.5), images, batch_size=40)
    resampled = augmented(AugmentationConfig(flip=0.5, crop_ratio=1.0 + 1e-9), images, batch_size=40)
    assert torch.allclose(alone, resampled, atol=1e-3)


def test_erasing_leaves_a_grey_rectangle_of_the_stated_area() -> None:
    images = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    changed = augmented(AugmentationConfig(erase=1.0), images, batch_size=50)
    shares = (changed[:, 0] == 0.5).float().mean((1, 2))
    assert ((shares > 0.01) & (shares < 0.36)).all()


def test_mixup_and_cutmix_blend_with_the_share_that_they_report() -> None:
    images = torch.stack([torch.full((3, 8, 8), float(value)) for value in (0, 1)])
    for cfg in (AugmentationConfig(mixup=1.0), AugmentationConfig(cutmix=1.0)):
        generator = seeded(5)
        for _ in range(20):
            mixed, order, share = mix(images, cfg, generator)
            expected = share * images.mean((1, 2, 3)) + (1 - share) * images[order].mean((1, 2, 3))
            assert torch.allclose(mixed.mean((1, 2, 3)), expected, atol=1e-6)
            assert 0 <= share <= 1
