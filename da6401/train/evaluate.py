"""A model's answers on a set of images, and what they are worth."""

# B batch, N images, K classes

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da6401.data.batches import batches
from da6401.data.sources import ImageSet
from da6401.errors import InterruptedRun
from da6401.runtime import StopFlag


@dataclass(frozen=True)
class Evaluation:
    """Sums over all images, divided once at the end."""

    loss: float  # mean cross-entropy in nats, without label smoothing or class weights
    accuracy: float  # 0..1, ties go to the lower class
    probabilities_NK: Tensor  # float32, on the CPU


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: ImageSet,
    *,
    batch_size: int,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    channels_last: bool = True,
    stop: StopFlag | None = None,
) -> Evaluation:
    """Classify every image once, unaugmented, in eval mode; the model's mode is put back after.

    Raises:
        InterruptedRun: ``stop`` was set.
    """
    was_training = model.training
    model.eval()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    logits = []
    for batch in batches(images, batch_size=batch_size, device=device, shuffle=None):
        if stop is not None and stop.signum is not None:
            raise InterruptedRun(stop.signum)
        pixels_BCHW = batch.images_BCHW.float().div_(255).contiguous(memory_format=layout)
        with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
            logits.append(model(pixels_BCHW).float())
    model.train(was_training)
    logits_NK = torch.cat(logits).cpu()
    labels_N = images.labels_N
    return Evaluation(
        loss=float(F.cross_entropy(logits_NK.double(), labels_N)),
        accuracy=int((logits_NK.argmax(1) == labels_N).sum()) / len(labels_N),
        probabilities_NK=logits_NK.softmax(1),
    )
