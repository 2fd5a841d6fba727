"""Part A's network."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from da6401.config.schema import Activation, CnnConfig, Pooling
from da6401.errors import ModelError
from da6401.models.build import build_model
from da6401.models.cnn import ACTIVATIONS, POOLINGS, ConvBlock
from tests.networks import cnn

TINY = CnnConfig(filters=8, blocks=3, dense_width=16)


def test_the_tables_hold_every_name_of_the_schema() -> None:
    assert tuple(ACTIVATIONS) == get_args(Activation)
    assert tuple(POOLINGS) == get_args(Pooling)


@pytest.mark.parametrize(
    "cfg",
    [
        TINY,
        replace(TINY, residual=True),
        replace(TINY, residual=True, batch_norm=False),
        replace(TINY, convolutions=2),
        replace(TINY, convolutions=[1, 3, 1], batch_norm=False, residual=True),
        replace(TINY, filters=[8, 8, 12], kernel_size=[7, 1, 5], pooling="avg", batch_norm=False),
        replace(TINY, global_pool=True, dense_width=0),
        replace(TINY, block_dropout=0.1, dropout=0.1, activation="mish"),
        replace(TINY, activation="tanh", batch_norm=False),
        replace(TINY, activation="leaky_relu", organisation="halve"),
    ],
    ids=lambda cfg: (
        f"{cfg.activation}-{'residual' if cfg.residual else 'plain'}-bn{cfg.batch_norm:d}-{cfg.convolutions}"
    ),
)
def test_every_variant_learns_eight_images_by_heart(cfg: CnnConfig) -> None:
    torch.manual_seed(0)
    model = build_model(cfg, num_classes=4, image_size=16)
    images = torch.rand(8, 3, 16, 16)
    labels = torch.arange(8) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(4.0).log().item(), abs=0.2)  # all classes alike at the start
    assert min(losses[-10:]) < 0.35 * losses[0]
    assert model.stage_names == ("block1", "block2", "block3")


@pytest.mark.parametrize("activation", get_args(Activation))
def test_the_signal_neither_dies_nor_explodes_through_eight_blocks(activation: Activation) -> None:
    torch.manual_seed(0)
    cfg = CnnConfig(filters=32, blocks=8, organisation="same", batch_norm=False, pooling="avg", activation=activation)
    model = build_model(cfg, num_classes=10, image_size=256)
    images = torch.rand(2, 3, 256, 256)
    first = model.run_stages(model.normalise(images), 0, 1)
    last = model.run_stages(first, 1, 8)
    assert 0.02 < last.std() / first.std() < 5


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_residual_block_starts_as_its_shortcut(batch_norm: bool) -> None:
    cfg = CnnConfig(batch_norm=batch_norm, residual=True)
    block = ConvBlock(cfg, in_channels=4, filters=4, kernel_size=3).eval()
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), nn.functional.max_pool2d(x.relu(), 2))


def test_a_block_has_so_many_convolutions_each_with_its_norm() -> None:
    model = build_model(replace(TINY, convolutions=[1, 2, 3]), num_classes=4, image_size=16)
    blocks = [model.stages[name] for name in model.stage_names]
    for kind in (nn.Conv2d, nn.BatchNorm2d):
        assert [sum(isinstance(module, kind) for module in block.modules()) for block in blocks] == [1, 2, 3]


def test_images_need_not_be_square() -> None:
    model = cnn(image_size=(20, 13), filters=[4, 6], kernel_size=[3, 5], activation="silu")
    assert model(torch.rand(2, 3, 20, 13)).shape == (2, 3)
    assert model.run_stages(torch.rand(2, 3, 20, 13), 0, 2).shape == (2, 6, 5, 3)


def test_block_dropout_drops_whole_maps() -> None:
    torch.manual_seed(0)
    model = build_model(replace(TINY, block_dropout=0.5), num_classes=4, image_size=16).train()
    maps = model.run_stages(torch.rand(16, 3, 16, 16), 0, 1).flatten(2)
    dead = (maps == 0).all(dim=2).float().mean()
    assert 0.3 < dead < 0.7


def test_shapes_that_do_not_fit_are_a_model_error_with_the_checks_text() -> None:
    with pytest.raises(ModelError, match="block5 receives a 1 x 1 map"):
        build_model(CnnConfig(blocks=5), num_classes=10, image_size=16)


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build_model(TINY, num_classes=4, image_size=16).parameters())

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))
