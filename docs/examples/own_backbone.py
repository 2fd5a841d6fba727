"""A backbone of one's own in stages: freezing, rates by stage and the cache of features work as for those built in.

Command: da6401 train --plugin docs/examples/own_backbone.py model=twostage model.weights=none model.freeze_depth=1
    model.width=8 data=synthetic data.image_size=16 data.classes=3 trainer.epochs=1 hydra.run.dir=outputs/own_backbone
"""

from dataclasses import dataclass

from torch import nn

from da6401.plugins import backbone, key
from da6401.registry import BackboneEntry


@dataclass
class TwoStage:
    """model=twostage has all keys of a pretrained backbone (weights, freeze_depth, dropout, ...) and this one."""

    width: int = key(16, "maps of the first stage", low=1, high=512)


def _stage(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)
    )


@backbone("twostage", TwoStage)
def twostage(cfg) -> BackboneEntry:
    """The stages, how the network is made and cut into them, and the features that the last one gives the new head.

    With `imagenet=` an address or `model.weights=FILE` it starts from weights of your own.
    """
    network = nn.Sequential
    return BackboneEntry(
        stages=("stem", "body"),
        make=lambda image_size: network(
            _stage(3, cfg.width),
            network(_stage(cfg.width, 2 * cfg.width), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ),
        cut=lambda net: [net[0], net[1]],
        features=2 * cfg.width,
        min_size=4,
    )
