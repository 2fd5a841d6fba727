"""A network of one's own, with two keys.

Command: da6401 train --plugin docs/examples/own_model.py model=mlp model.width=32 data=digits data.image_size=8
    trainer.epochs=1 hydra.run.dir=outputs/own_model
"""

from dataclasses import dataclass

from torch import nn

from da6401.plugins import key, model


@dataclass
class Mlp:
    """The keys of model=mlp: model.width and model.depth. What breaks a rule is refused before anything trains."""

    width: int = key(64, "neurons of a hidden layer", low=1, high=4096)
    depth: int = key(1, "hidden layers", low=1, high=8)


@model("mlp", Mlp)
def mlp(cfg: Mlp, num_classes: int, image_size: int) -> nn.Module:
    """Images (B, 3, S, S) with values in 0..1 -> logits (B, num_classes)."""
    layers: list[nn.Module] = [nn.Flatten()]
    features = 3 * image_size**2
    for _ in range(cfg.depth):
        layers += [nn.Linear(features, cfg.width), nn.ReLU()]
        features = cfg.width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))
