"""Several trained networks, or several views of an image, that answer as one."""

# B batch, K classes, M members

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from da6401.models.stages import StagedModel


class Ensemble(nn.Module):
    """The mean of the members' probabilities, each of the image and, where asked for, of its mirror image.

    Args:
        members: networks with the same classes in the same order.
        sides: data.image_size of each member, px: for one of another size the images are resized.
        flips: average over the image and its horizontal flip.
        temperature: divides the log-probabilities of the mean; 1 leaves them as they are.
    """

    def __init__(
        self, members: Sequence[StagedModel], *, sides: Sequence[int], flips: bool, temperature: float
    ) -> None:
        super().__init__()
        self.members, self.sides = nn.ModuleList(members), tuple(sides)
        self.flips, self.temperature = flips, temperature

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, K), which softmax turns into the mean, at the temperature, of RGB images with values in 0..1."""
        views = (images_BCHW, images_BCHW.flip(3)) if self.flips else (images_BCHW,)
        probabilities = [
            member(resized(view, side)).float().softmax(1)
            for member, side in zip(self.members, self.sides, strict=True)
            for view in views
        ]
        logits_BK = torch.stack(probabilities).mean(0).clamp_min(torch.finfo(torch.float32).tiny).log()
        return logits_BK if self.temperature == 1 else logits_BK / self.temperature


def resized(images_BCHW: Tensor, side: int) -> Tensor:
    """The images at this side, px, by the filter that data.image_size resizes files with."""
    if images_BCHW.shape[-1] == side:
        return images_BCHW
    return functional.interpolate(images_BCHW, (side, side), mode="bilinear", antialias=True)
