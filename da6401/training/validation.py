"""A model's answers on a set of images, and what they are worth."""

# B batch, N images, K classes

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da6401.config.schema import Precision
from da6401.data.batches import batches
from da6401.data.sources import ImageSet
from da6401.training.signals import StopFlag


@dataclass(frozen=True)
class Evaluation:
    """Sums over all images, divided once at the end."""

    loss: float  # mean cross-entropy in nats, without label smoothing or class weights
    accuracy: float  # 0..1, ties go to the lower class
    probabilities_NK: Tensor  # float32, on the CPU


AUTOCAST: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def laid_out(x: Tensor, *, channels_last: bool) -> Tensor:
    """The same values in the memory layout that the network computes in; tokens and flat features have only one."""
    if x.ndim < 4:
        return x
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: ImageSet,
    *,
    batch_size: int,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    channels_last: bool = True,
    first: int = 0,
    stop: StopFlag | None = None,
) -> Evaluation:
    """Classify every image once, unaugmented, in eval mode; the model's mode is put back after.

    Args:
        first: ``images`` are pictures where it is 0, and else what stage ``first`` is fed with.

    Raises:
        InterruptedRun, TrialTimeoutError: ``stop`` asks for the end.
    """
    was_training = model.training
    model.eval()
    logits = []
    for batch in batches(images, batch_size=batch_size, device=device, shuffle=None):
        if stop is not None:
            stop.check()
        x = batch.images_BCHW if first else batch.images_BCHW.float().div_(255)
        x = laid_out(x, channels_last=channels_last)
        with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
            logits.append((model(x, first) if first else model(x)).float())
    model.train(was_training)
    logits_NK = torch.cat(logits).cpu()
    labels_N = images.labels_N
    return Evaluation(
        loss=float(F.cross_entropy(logits_NK.double(), labels_N)),
        accuracy=int((logits_NK.argmax(1) == labels_N).sum()) / len(labels_N),
        probabilities_NK=logits_NK.softmax(1),
    )
