"""From the model's configuration to the network, ready to train."""

from __future__ import annotations

from da6401.config.backbones import backbone_problems
from da6401.config.cnn_shapes import convolutions_of, filters_of, kernels_of, shape_problems
from da6401.config.schema import CnnConfig, ModelConfig
from da6401.errors import ModelError
from da6401.models.cnn import Cnn
from da6401.models.freezing import final_freeze_plan
from da6401.models.stages import StagedModel


def build_model(cfg: ModelConfig, *, num_classes: int, image_size: int) -> StagedModel:
    """The network for square images of this side in px, with the stages frozen that never train.

    Initial weights come from torch's global generator: seed it before.

    Raises:
        ModelError: the shapes do not fit the image, or the weights cannot be had or do not match.
    """
    if isinstance(cfg, CnnConfig):
        _refuse(shape_problems(cfg, image_size))
        return Cnn(
            image_size=(image_size, image_size),
            num_classes=num_classes,
            filters=filters_of(cfg),
            kernels=kernels_of(cfg),
            convolutions=convolutions_of(cfg),
            activation=cfg.activation,
            batch_norm=cfg.batch_norm,
            pooling=cfg.pooling,
            residual=cfg.residual,
            global_pool=cfg.global_pool,
            dense_width=cfg.dense_width,
            block_dropout=cfg.block_dropout,
            dropout=cfg.dropout,
        )
    _refuse(backbone_problems(cfg, image_size))
    from da6401.models.pretrained import build_backbone  # torchvision costs seconds, which Part A need not wait for

    model = build_backbone(
        name=cfg.name, source=cfg.weights, num_classes=num_classes, image_size=image_size, dropout=cfg.dropout
    )
    model.apply_freeze_plan(final_freeze_plan(cfg))
    return model


def check_weights(cfg: ModelConfig, *, image_size: int, fetch: bool) -> None:
    """What build_model would say to the weights, without reading a number of them.

    Args:
        image_size: side of the images in px.
        fetch: what has to be downloaded is downloaded now; without, it is taken to be right.

    Raises:
        ModelError: the weights cannot be had, or do not fit.
    """
    if not isinstance(cfg, CnnConfig) and cfg.weights != "none":
        from da6401.models.pretrained import check_weights as check

        check(name=cfg.name, source=cfg.weights, image_size=image_size, fetch=fetch)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ModelError("the network cannot be built:\n" + "\n".join(f"  - {problem}" for problem in problems))
