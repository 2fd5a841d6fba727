"""Augmentation against torchvision's: each change pixel by pixel, each distribution by moments over many draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from da6401.config.schema import AugmentationConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.data.augment.colour import drawn_changes, jitter
from da6401.data.augment.erasing import erase_boxes
from da6401.data.augment.geometry import crop_boxes, resample, resize_boxes
from da6401.data.augment.random_table import TRIES
from da6401.data.augment.trivial_augment import CHANGES, trivial_augment
from da6401.data.batches import seeded

SIDE = 24


def picture(side: int = SIDE) -> Tensor:
    """A smooth coloured picture with a hard edge, uint8 (3, side, side)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    smooth = torch.stack([0.2 + 0.6 * x, 0.9 - 0.7 * y, 0.5 + 0.4 * torch.sin(7 * x * y)])
    smooth[:, y > 0.8] *= 0.5
    return (255 * smooth).to(torch.uint8)


# ---- pixel by pixel ---------------------------------------------------------------------------------------------


def test_a_box_is_resized_as_torchvision_does() -> None:
    generator = seeded(1)
    images = torch.stack([picture()] * 40)
    boxes = crop_boxes(
        torch.rand(40, 2 * TRIES, generator=generator), torch.rand(40, 2, generator=generator),
        least_scale=0.2, largest_ratio=4 / 3, side=SIDE,
    )  # fmt: skip
    expected = torch.stack([reference.resized_crop(picture(), *box, size=[SIDE, SIDE]) for box in boxes.tolist()])
    assert (resize_boxes(images, boxes, torch.zeros(40, dtype=torch.bool)).int() - expected.int()).abs().max() <= 1
    # The grid of other devices differs where a box ends: there it sees the pixel beyond.
    by_grid = resample(images, boxes, torch.zeros(40), torch.zeros(40, dtype=torch.bool))
    assert (by_grid.int() - expected.int())[:, :, 2:-2, 2:-2].abs().max() <= 1


def test_rotation_turns_as_torchvision_does() -> None:
    images, whole = picture(64)[None], torch.tensor([[0, 0, 64, 64]])
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    inside = x**2 + y**2 < 0.9
    for angle in (-40.0, 15.0, 170.0):
        turned = resample(images, whole, torch.tensor([math.radians(angle)]), torch.tensor([False]))[0]
        expected = reference.rotate(picture(64), angle, interpolation=v2.InterpolationMode.BILINEAR)
        assert (turned.int() - expected.int()).abs()[:, inside].max() <= 1


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "identity"])
def test_each_change_of_trivial_augment_is_torchvisions(name: str) -> None:
    change, signed = CHANGES[name]
    assert change is not None
    strengths = torch.linspace(-1 if signed else 0, 1, 7)
    images = torch.stack([picture()] * 7)
    images[3] = torch.randint(0, 256, (3, SIDE, SIDE), generator=seeded(2), dtype=torch.uint8)
    space = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    theirs = {
        "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY",
        "saturation": "Color", "autocontrast": "AutoContrast",
    }.get(name, name.capitalize())  # fmt: skip
    ours = change(images.clone(), strengths)
    policy = v2.TrivialAugmentWide()
    for row, strength in enumerate(strengths.tolist()):
        magnitudes = space[theirs][0](31, SIDE, SIDE)
        magnitude = 0.0 if magnitudes is None else float(magnitudes[round(abs(strength) * 30)])
        # a strength of thirty steps is the nearest to the drawn one
        exact = round(abs(strength) * 30) / 30
        single = change(images[row : row + 1].clone(), torch.tensor([math.copysign(exact, strength)]))[0]
        expected = policy._apply_image_or_video_transform(
            images[row], theirs, math.copysign(magnitude, strength),
            interpolation=v2.InterpolationMode.NEAREST, fill={},
        )  # fmt: skip
        off = (single.int() - expected.int()).abs()
        # Nearest neighbours on a tie may round apart; every other change is within a level.
        assert (off > 1).float().mean() < (0.03 if "shear" in name or name == "rotate" else 1e-9), (name, strength)
    assert ours.dtype == torch.uint8


def test_colour_changes_come_in_the_drawn_order_with_the_drawn_factors() -> None:
    amounts = (0.6, 0.7, 0.8, 0.3)
    orders = list(itertools.permutations(range(4)))
    generator = seeded(4)
    draws = torch.rand(len(orders), 4, generator=generator)
    places = torch.tensor([[order.index(change) / 4 for change in range(4)] for order in orders])
    start = picture().float() / 255
    ours = jitter(start.repeat(len(orders), 1, 1, 1), *drawn_changes(draws, places, amounts))
    change = [
        reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation, reference.adjust_hue,
    ]  # fmt: skip
    for row, order in enumerate(orders):
        expected = start
        for which in order:
            amount = amounts[which] * float(2 * draws[row, which] - 1)
            expected = change[which](expected, amount if which == 3 else 1 + amount)
        assert torch.allclose(ours[row], expected, atol=2e-3), order


# ---- by moments -------------------------------------------------------------------------------------------------


def outcomes(images: Tensor) -> Tensor:
    """What is compared of each picture: its channels' means, its spread, its left-right and top-bottom difference."""
    half = images.shape[-1] // 2
    return torch.cat(
        [
            images.mean((2, 3)), images.std((1, 2, 3))[:, None],
            (images[..., :half].mean((1, 2, 3)) - images[..., half:].mean((1, 2, 3)))[:, None],
            (images[:, :, :half].mean((1, 2, 3)) - images[:, :, half:].mean((1, 2, 3)))[:, None],
        ],
        dim=1,
    )  # fmt: skip


def assert_same_moments(ours: Tensor, theirs: Tensor) -> None:
    """Means and standard deviations of each outcome agree within five standard errors and a thousandth."""
    error = ((ours.var(0) / len(ours)) + (theirs.var(0) / len(theirs))).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * error + 1e-3).all(), (ours.mean(0), theirs.mean(0), error)

    def fourth(values: Tensor) -> Tensor:
        centred = values - values.mean(0)
        return ((centred**4).mean(0) - (centred**2).mean(0) ** 2).clamp(min=0) / len(values)

    error = (fourth(ours) + fourth(theirs)).sqrt()
    assert ((ours.var(0) - theirs.var(0)).abs() < 5 * error + 1e-4).all(), (ours.var(0), theirs.var(0), error)


@pytest.mark.parametrize(
    ("cfg", "transform"),
    [
        (AugmentationConfig(flip=0.3), v2.RandomHorizontalFlip(0.3)),
        (
            AugmentationConfig(crop_scale=0.2, crop_ratio=4 / 3),
            v2.RandomResizedCrop(SIDE, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)),
        ),
        (
            AugmentationConfig(brightness=0.4, contrast=0.5, saturation=0.6, hue=0.2),
            v2.ColorJitter(0.4, 0.5, 0.6, 0.2),
        ),
        (AugmentationConfig(brightness=0.9), v2.ColorJitter(brightness=0.9)),
        (
            AugmentationConfig(trivial_augment=True),
            v2.Compose([v2.ToDtype(torch.uint8, scale=True), v2.TrivialAugmentWide()]),
        ),
        (AugmentationConfig(erase=0.6), v2.RandomErasing(0.6, value=0.5)),
    ],
    ids=["flip", "crop", "colour", "brightness", "trivial", "erase"],
)
def test_each_transform_has_torchvisions_moments(
    cfg: AugmentationConfig, transform: Callable[[Tensor], Tensor]
) -> None:
    count = 2500
    same = picture().expand(count, -1, -1, -1)
    ours = Augmenter(cfg, count=count, generator=seeded(7))(same, torch.arange(count))
    torch.manual_seed(0)
    start = picture().float() / 255
    to_float = v2.ToDtype(torch.float32, scale=True)
    theirs = torch.stack([to_float(transform(start)) for _ in range(count)])
    assert_same_moments(outcomes(ours), outcomes(theirs))


def test_erasing_boxes_have_torchvisions_moments() -> None:
    generator = seeded(9)
    boxes = erase_boxes(
        torch.rand(4000, 2 * TRIES, generator=generator), torch.rand(4000, 2, generator=generator), side=100
    )
    torch.manual_seed(0)
    transform, image = v2.RandomErasing(1.0), torch.zeros(3, 100, 100)
    drawn = [transform.make_params([image]) for _ in range(4000)]
    theirs = torch.tensor([[box["i"], box["j"], box["h"], box["w"]] for box in drawn])
    assert_same_moments(boxes.float(), theirs.float())


def test_trivial_augment_draws_all_changes_equally_often() -> None:
    draws = torch.rand(14_000, 3, generator=seeded(3))
    same = picture(4)[None].repeat(14_000, 1, 1, 1)
    kept = (trivial_augment(same.clone(), draws) == same).all((1, 2, 3)).sum().item()
    counts = (draws[:, 0] * len(CHANGES)).long().bincount(minlength=14)
    assert len(counts) == 14
    assert ((counts - 1000).abs() < 160).all()
    assert kept >= counts[0]  # identity, and changes at strength 0
