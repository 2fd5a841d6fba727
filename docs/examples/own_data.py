"""Images from a function of one's own.

Command: da6401 train --plugin docs/examples/own_data.py data=stripes data.images=60 data.image_size=16
    model.filters=4 model.blocks=2 trainer.epochs=1 hydra.run.dir=outputs/own_data
"""

from dataclasses import dataclass

import numpy as np

from da6401.plugins import data_source, key


@dataclass
class Stripes:
    """The keys of data=stripes, besides image_size, val_fraction and split_seed, which every source has."""

    images: int = key(200, "images of each split", low=10, high=100_000)
    noise: float = key(30.0, "standard deviation of the noise", unit="of 255", low=0, high=255)


@data_source("stripes", Stripes)
def stripes(cfg, split: str):
    """uint8 images (N, 3, H, W), labels (N,), class names; pictures of any size may also come as a list.

    It is called with split="train", of which data.val_fraction is held out, and with "test" for `da6401 evaluate`.
    """
    draws = np.random.default_rng({"train": 0, "test": 1}[split])
    labels = np.arange(cfg.images) % 2
    grid = np.indices((16, 16))  # rows, columns
    bars = np.stack([128 + 100 * np.sin(grid[label] + draws.uniform(0, 6)) for label in labels])
    noisy = bars[:, None] + draws.normal(0, cfg.noise, (cfg.images, 3, 16, 16))
    return noisy.clip(0, 255).astype(np.uint8), labels, ["horizontal", "vertical"]
