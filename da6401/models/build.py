"""From the model's configuration to the network, ready to train."""

from __future__ import annotations

from da6401.config.backbone_rules import backbone_problems
from da6401.config.cnn_shapes import shape_problems
from da6401.config.schema import CnnConfig, ModelConfig, PretrainedConfig
from da6401.errors import ModelError
from da6401.models.cnn import Cnn
from da6401.models.freezing import final_freeze_plan
from da6401.models.own_networks import build_own, check_blocks, check_network
from da6401.models.stages import StagedModel
from da6401.plugins.registered import REGISTERED
from da6401.registry import BLOCKS, NETWORKS


def build_model(cfg: ModelConfig, *, num_classes: int, image_size: int) -> StagedModel:
    """The network for square images of this side in px, with the stages frozen that never train.

    Initial weights come from torch's global generator: seed it before.

    Raises:
        ModelError: the shapes do not fit the image, or the weights are not available or do not match.
    """
    if cfg.name in NETWORKS:
        return build_own(cfg, num_classes=num_classes, image_size=image_size)
    if isinstance(cfg, CnnConfig):
        _refuse(shape_problems(cfg, image_size))
        cnn = Cnn(cfg, image_size=(image_size, image_size), num_classes=num_classes)
        if cfg.name in BLOCKS:
            check_blocks(cnn, cfg, image_size=image_size)
            cnn.keep_frozen()
        return cnn
    _refuse(backbone_problems(cfg, image_size))
    from da6401.models.pretrained import build_backbone  # torchvision takes seconds to import; Part A does not need it

    model = build_backbone(
        cfg.backbone, cfg.label, source=cfg.weights, num_classes=num_classes, image_size=image_size, dropout=cfg.dropout
    )
    if ("backbone", cfg.name) in REGISTERED:
        check_network("backbone", cfg.name, model, num_classes=num_classes, image_size=image_size)
    model.apply_freeze_plan(final_freeze_plan(cfg))
    return model


def check_weights(cfg: ModelConfig, *, image_size: int, fetch: bool) -> None:
    """Raise what build_model would raise about the weights, without reading their values.

    Args:
        image_size: side of the images in px.
        fetch: True downloads now what has to be downloaded; False assumes that it is right.

    Raises:
        ModelError: the weights are not available, or do not fit.
    """
    if isinstance(cfg, PretrainedConfig) and cfg.weights != "none":
        from da6401.models.pretrained import check_weights as check

        check(cfg.backbone, cfg.label, source=cfg.weights, image_size=image_size, fetch=fetch)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ModelError("the network cannot be built:\n" + "\n".join(f"  - {problem}" for problem in problems))
