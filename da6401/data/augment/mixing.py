"""Mixup and CutMix: a batch mixed with a permutation of itself."""

# B batch, C = 3 channels, H = W side

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Gamma

from da6401.config.schema import AugmentationConfig
from da6401.data.resident import send


def mix(images_BCHW: Tensor, cfg: AugmentationConfig, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Mixup (arXiv 1710.09412) or CutMix (arXiv 1905.04899); where both are on, each with probability one half.

    Returns:
        the mixed images, the permutation (B,) of the second labels, and the share of the first label.
    """
    alphas = [alpha for alpha in (cfg.mixup, cfg.cutmix) if alpha > 0]
    cut = cfg.cutmix > 0 and (len(alphas) == 1 or float(torch.rand((), generator=generator)) < 0.5)
    share = _beta(cfg.cutmix if cut else cfg.mixup, generator)
    order = torch.randperm(len(images_BCHW), generator=generator)
    other = images_BCHW[send(order, images_BCHW.device)]
    if not cut:
        return torch.lerp(other, images_BCHW, share), order, share
    side = images_BCHW.shape[-1]
    length = round(side * math.sqrt(1 - share))
    top, left = (int(torch.randint(side - length + 1, (), generator=generator)) for _ in range(2))
    mixed = images_BCHW.clone()
    mixed[:, :, top : top + length, left : left + length] = other[:, :, top : top + length, left : left + length]
    return mixed, order, 1 - length * length / (side * side)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A draw of Beta(alpha, alpha), from two gamma draws.

    torch.distributions draws from torch's own generator, which therefore has the state of ``generator`` for a moment.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        first, second = Gamma(torch.full((2,), alpha, dtype=torch.float64), 1.0).sample().tolist()
        generator.set_state(torch.get_rng_state())
    share: float = first / (first + second)
    return share
