"""A metric of one's own: the best epoch is chosen by it, and a sweep optimises it.

Command: da6401 train --plugin docs/examples/own_metric.py trainer.metric=cost metrics.cost.rare=10
    data=synthetic data.image_size=16 data.classes=3 model.filters=4 model.blocks=2 trainer.epochs=1
    hydra.run.dir=outputs/own_metric
"""

from dataclasses import dataclass

import numpy as np

from da6401.plugins import key, metric


@dataclass
class Cost:
    """The keys below metrics.cost."""

    rare: float = key(5.0, "what a missed image of the last class costs; any other costs 1", above=0)


@metric("cost", Cost, words="cost of an image", maximise=False)
def cost(labels: np.ndarray, probabilities: np.ndarray, cfg: Cost) -> float:
    """Labels (N,) and probabilities (N, K) of a split -> one finite number."""
    prices = np.where(labels == probabilities.shape[1] - 1, cfg.rare, 1.0)
    return float((prices * (probabilities.argmax(1) != labels)).mean())
