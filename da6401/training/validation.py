"""The loss, accuracy and probabilities of a network on images that it does not train on."""

# B batch, N images, K classes

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da6401.data.batches import batches
from da6401.data.image_sets import ImageSet
from da6401.training.arithmetic import Arithmetic
from da6401.training.signals import StopFlag


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
    arithmetic: Arithmetic,
    *,
    batch_size: int,
    first_stage: int = 0,
    stop: StopFlag | None = None,
) -> Evaluation:
    """Classify every image once, unaugmented, in eval mode; the model's mode is restored after it.

    Args:
        first_stage: ``images`` are images where it is 0, and else the inputs of this stage.

    Raises:
        InterruptedRun, TrialTimeoutError: ``stop`` asks for the end.
    """
    was_training = model.training
    model.eval()
    logits = []
    for batch in batches(images, batch_size=batch_size, device=arithmetic.device, shuffle=None):
        if stop is not None:
            stop.check()
        x = arithmetic.in_layout(batch.images_BCHW if first_stage else batch.images_BCHW.float().div_(255))
        with arithmetic.autocast():
            logits.append((model(x, first_stage) if first_stage else model(x)).float())
    model.train(was_training)
    logits_NK = torch.cat(logits).cpu()
    labels_N = images.labels_N
    return Evaluation(
        loss=float(F.cross_entropy(logits_NK.double(), labels_N)),
        accuracy=int((logits_NK.argmax(1) == labels_N).sum()) / len(labels_N),
        probabilities_NK=logits_NK.softmax(1),
    )
