"""A random change of the training images of one's own.

Command: da6401 train --plugin docs/examples/own_augmentation.py augmentation=[light,noise] augmentation.noise.sigma=0.1
    data=synthetic data.image_size=16 data.classes=3 model.filters=4 model.blocks=2 trainer.epochs=1
    hydra.run.dir=outputs/own_augmentation
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from da6401.plugins import augmentation, key


@dataclass
class Noise:
    """The keys below augmentation.noise; there is also augmentation.noise.on, which the option noise sets."""

    sigma: float = key(0.05, "largest standard deviation of the noise", low=0, high=1)


@augmentation("noise", Noise)
def noise(images: Tensor, generator: torch.Generator, cfg: Noise) -> Tensor:
    """Float images (B, 3, S, S) in 0..1 -> the same shape and device.

    Draw from the generator (it is on the CPU) and nothing else: then a run that is stopped and resumed is the same.
    """
    strength = cfg.sigma * torch.rand(len(images), 1, 1, 1, generator=generator)
    drawn = torch.randn(images.shape, generator=generator) * strength
    return (images + drawn.to(images.device)).clamp(0, 1)
