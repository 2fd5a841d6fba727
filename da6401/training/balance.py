"""Unbalanced classes: how unbalanced they are, what a training can do about it, and a hint where it does nothing."""

# B batch, N images, K classes

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from da6401.config.schema import TrainerConfig

log = logging.getLogger(__name__)

TINY = 1e-7  # of focal loss: the root of 0 has no slope
HINT_FROM = 3.0  # images of the largest class for one of the smallest
_told: set[str] = set()  # of which data this process has given the hint


@dataclass(frozen=True)
class Imbalance:
    """The smallest and the largest class of train."""

    smallest: str
    fewest: int
    largest: str
    most: int

    @property
    def ratio(self) -> float:
        """Images of the largest class for one of the smallest; at least 1."""
        return self.most / max(1, self.fewest)


def imbalance_of(labels_N: Tensor, class_names: Sequence[str]) -> Imbalance:
    """How unbalanced train is; of equal classes the first is named."""
    counts_K = torch.bincount(labels_N, minlength=len(class_names))
    low, high = int(counts_K.argmin()), int(counts_K.argmax())
    return Imbalance(class_names[low], int(counts_K[low]), class_names[high], int(counts_K[high]))


def tell_imbalance(found: Imbalance, trainer: TrainerConfig, *, fingerprint: str) -> None:
    """Log it; and once for each data set, what helps, where nothing is done, or what is done twice."""
    log.info(
        "train has %d images of its smallest class (%s) and %d of its largest (%s): %.1f to 1",
        found.fewest, found.smallest, found.most, found.largest, found.ratio,
    )  # fmt: skip
    corrections = {
        "trainer.sampler=balanced": trainer.sampler == "balanced",
        "trainer.class_weights=true": trainer.class_weights,
        "trainer.logit_adjustment": trainer.logit_adjustment > 0,
    }
    used = [key for key, is_used in corrections.items() if is_used]
    if len(used) > 1:
        log.warning("%s each correct the shares of the classes: together they favour the rare ones", " and ".join(used))
    if fingerprint in _told or found.ratio < HINT_FROM or used or trainer.focal_gamma:
        return
    _told.add(fingerprint)
    metric = "" if trainer.metric != "accuracy" else (
        "accuracy says little of the rare classes: trainer.metric=macro_f1 or balanced_accuracy; "
    )  # fmt: skip
    log.info("hint: %sfor the training itself try %s=1, or trainer.focal_gamma=2", metric, " or ".join(corrections))


def balanced_weights(labels_N: Tensor, classes: int) -> Tensor:
    """Class weights inverse to the class counts, with mean 1 over the images: N / (K n_k)."""
    counts_K = torch.bincount(labels_N, minlength=classes).clamp(min=1)
    return len(labels_N) / (classes * counts_K.float())


def effective_weights(labels_N: Tensor, classes: int, *, beta: float) -> Tensor:
    """Class weights inverse to the effective number of images, (1 - beta^n) / (1 - beta), with mean 1 over the images.

    Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples" (arXiv 1901.05555). beta=0 weighs all
    classes alike; towards 1 the weights become those inverse to the counts.
    """
    counts_K = torch.bincount(labels_N, minlength=classes).clamp(min=1).double()
    weights_K = (1 - beta) / (1 - beta**counts_K)
    return (weights_K / weights_K[labels_N].mean()).float()


def balanced_rows(labels_N: Tensor, generator: torch.Generator) -> Tensor:
    """(N,): as many images as there are, the same number of each class but for one, in no order that matters.

    A class with more images than its part gives a random choice of them; one with fewer gives each equally often but
    for one.
    """
    present = torch.unique(labels_N)
    share, rest = divmod(len(labels_N), len(present))
    with_one_more = torch.randperm(len(present), generator=generator)[:rest].tolist()
    parts = []
    for place, label in enumerate(present.tolist()):
        rows = torch.nonzero(labels_N == label).flatten()
        wanted = share + (place in with_one_more)
        rounds = -(-wanted // len(rows))
        drawn = torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)])
        parts.append(drawn[:wanted])
    return torch.cat(parts)


class ClassLoss:
    """Cross-entropy with what `trainer` says of classes: weights, logit adjustment, focal loss, label smoothing.

    Args:
        labels_N: of train, which the weights and the classes' shares are counted from.
    """

    def __init__(self, trainer: TrainerConfig, labels_N: Tensor, classes: int, device: torch.device) -> None:
        self._smoothing, self._gamma = trainer.label_smoothing, trainer.focal_gamma
        self._weights_K: Tensor | None = None
        self._shift_K: Tensor | None = None
        if trainer.class_weights:
            by_number = trainer.class_weights_by == "effective"
            beta = trainer.effective_beta
            weights_K = (
                effective_weights(labels_N, classes, beta=beta) if by_number else balanced_weights(labels_N, classes)
            )
            self._weights_K = weights_K.to(device)
        if trainer.logit_adjustment > 0:
            # Menon et al. 2020, "Long-tail learning via logit adjustment" (arXiv 2007.07314): in training alone.
            shares_K = torch.bincount(labels_N, minlength=classes).clamp(min=1) / len(labels_N)
            self._shift_K = (trainer.logit_adjustment * shares_K.log()).to(device)

    def __call__(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        """The mean loss of a batch; with class weights the weighted mean, as torch has it."""
        if self._shift_K is not None:
            logits_BK = logits_BK + self._shift_K
        if not self._gamma:
            return F.cross_entropy(logits_BK, labels_B, self._weights_K, label_smoothing=self._smoothing)
        # Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv 1708.02002): what is easy counts less.
        losses_B = F.cross_entropy(
            logits_BK, labels_B, self._weights_K, label_smoothing=self._smoothing, reduction="none"
        )
        right_B = logits_BK.float().log_softmax(1).gather(1, labels_B[:, None])[:, 0].exp()
        total = len(labels_B) if self._weights_K is None else self._weights_K[labels_B].sum()
        return ((1 - right_B).clamp(min=TINY) ** self._gamma * losses_B).sum() / total
