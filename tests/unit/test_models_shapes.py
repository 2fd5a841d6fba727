"""The torch-free half of the models: filters, kernels, and what does not fit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest

from da6401.config.backbone_rules import backbone_problems
from da6401.config.cnn_shapes import MAX_FILTERS, filters_of, kernels_of, shape_problems
from da6401.config.schema import CnnConfig, Organisation, PretrainedConfig
from da6401.registry import BACKBONES


def test_the_checks_import_no_torch() -> None:
    code = (
        "import sys, da6401.config.backbone_rules, da6401.config.cnn_shapes; "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("organisation", "base", "expected"),
    [
        ("same", 32, [32, 32, 32, 32, 32]),
        ("double", 32, [32, 64, 128, 256, 512]),
        ("halve", 512, [512, 256, 128, 64, 32]),
        ("halve", 100, [100, 50, 25, 12, 6]),
    ],
)
def test_filters_follow_the_organisation(organisation: Organisation, base: int, expected: list[int]) -> None:
    assert filters_of(CnnConfig(filters=base, organisation=organisation)) == expected


def test_a_list_of_filters_sets_the_number_of_blocks() -> None:
    cfg = CnnConfig(filters=[8, 24, 5], blocks=7, organisation="halve", kernel_size=5)
    assert filters_of(cfg) == [8, 24, 5]
    assert kernels_of(cfg) == [5, 5, 5]
    assert shape_problems(cfg, 8) == []


@pytest.mark.parametrize(
    ("cfg", "image_size", "words"),
    [
        (
            CnnConfig(blocks=5),
            16,
            ["model.blocks=5", "block5 receives a 1 x 1 map", "data.image_size>=32", "model.blocks<=4"],
        ),
        (CnnConfig(blocks=5), 31, ["block5 receives a 1 x 1 map", "data.image_size>=32"]),
        (CnnConfig(blocks=2), 1, ["block1 receives a 1 x 1 map", "data.image_size>=4"]),
        (CnnConfig(filters=[8, 8, 8]), 7, ["model.filters=[8,8,8]", "block3", "at most 2 entries"]),
        (CnnConfig(filters=8, organisation="halve"), 64, ["block5 no filters", "model.filters>=16", "model.blocks<=4"]),
        (CnnConfig(filters=4096, blocks=3), 64, ["block3 16384 filters", str(MAX_FILTERS)]),
        (CnnConfig(kernel_size=4), 64, ["model.kernel_size=4", "odd side, such as 5"]),
        (CnnConfig(kernel_size=[3, 5]), 64, ["model.kernel_size=[3,5]", "2 kernel sizes for 5 blocks"]),
        (CnnConfig(convolutions=[1, 2]), 64, ["model.convolutions=[1,2]", "2 numbers for 5 blocks"]),
        (CnnConfig(filters=[], kernel_size=[]), 64, ["model.filters=[]", "at least one block"]),
    ],
)
def test_what_does_not_fit_is_told_with_its_remedy(cfg: CnnConfig, image_size: int, words: list[str]) -> None:
    problems = shape_problems(cfg, image_size)
    assert len(problems) == 1
    assert [word for word in words if word not in problems[0]] == []


def test_the_remedies_are_exact() -> None:
    assert shape_problems(CnnConfig(blocks=5), 32) == []
    assert shape_problems(CnnConfig(blocks=4), 31) == []
    assert shape_problems(CnnConfig(filters=16, organisation="halve"), 32) == []
    assert shape_problems(CnnConfig(filters=512, organisation="double"), 32) == []
    assert shape_problems(CnnConfig(filters=513, organisation="double"), 32) != []


def test_all_problems_of_one_network_are_told_at_once() -> None:
    assert len(shape_problems(CnnConfig(filters=8, organisation="halve", kernel_size=[2, 3]), 16)) == 4


def test_the_bound_on_doubled_filters_is_the_schemas_own() -> None:
    rule = next(field for field in fields(CnnConfig) if field.name == "filters").metadata["rule"]
    assert rule.high == MAX_FILTERS


def test_every_backbone_has_its_facts() -> None:
    assert len(BACKBONES) >= 10
    assert len(BACKBONES["googlenet"].stages) == 12
    for facts in BACKBONES.entries.values():
        assert len(set(facts.stages)) == len(facts.stages)
        assert not any("." in stage for stage in facts.stages)


@pytest.mark.parametrize("depth", [-1, 13])
def test_a_freeze_depth_out_of_range_names_the_stages(depth: int) -> None:
    (problem,) = backbone_problems(PretrainedConfig(name="googlenet", freeze_depth=depth), 224)
    assert f"model.freeze_depth={depth}" in problem
    assert "conv1, conv2, conv3, 3a, 3b, 4a, 4b, 4c, 4d, 4e, 5a, 5b" in problem
    assert "0..12" in problem


def test_every_depth_in_range_is_fine() -> None:
    for name, facts in BACKBONES.entries.items():
        for depth in range(len(facts.stages) + 1):
            assert backbone_problems(PretrainedConfig(name=name, freeze_depth=depth), 224) == []


def test_images_that_a_backbone_cannot_take() -> None:
    (small,) = backbone_problems(PretrainedConfig(name="inception_v3"), 74)
    assert "data.image_size=74" in small
    assert "75 x 75" in small
    (uneven,) = backbone_problems(PretrainedConfig(name="vit_b_16"), 100)
    assert "96 or 112" in uneven
    assert len(backbone_problems(PretrainedConfig(name="vit_b_16", freeze_depth=15), 8)) == 2
