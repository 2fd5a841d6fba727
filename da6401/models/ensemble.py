"""Several trained networks, or several views of an image, that answer as one."""

# B batch, K classes, M members

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from da6401.models.stages import StagedModel


class Ensemble(nn.Module):
    """The mean of the members' probabilities, each of the image and, where asked for, of its mirror image.

    Args:
        members: networks with the same classes in the same order, and images of the same size.
        flips: average over the image and its horizontal flip.
        temperature: divides the log-probabilities of the mean; 1 leaves them as they are.
    """

    def __init__(self, members: Sequence[StagedModel], *, flips: bool, temperature: float) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.flips, self.temperature = flips, temperature

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, K), which softmax turns into the mean, at the temperature, of RGB images with values in 0..1."""
        views = (images_BCHW, images_BCHW.flip(3)) if self.flips else (images_BCHW,)
        probabilities = [member(view).float().softmax(1) for member in self.members for view in views]
        logits_BK = torch.stack(probabilities).mean(0).clamp_min(torch.finfo(torch.float32).tiny).log()
        return logits_BK if self.temperature == 1 else logits_BK / self.temperature
