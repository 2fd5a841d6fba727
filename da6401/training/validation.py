"""The loss, accuracy and probabilities of a network on images that it does not train on."""

# B batch, N images, K classes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da6401.config.metrics import chosen_metric, word
from da6401.config.schema import RunConfig
from da6401.data.batches import batches, batches_at_once
from da6401.data.image_sets import ImageSet, TrainingData
from da6401.metrics.intervals import span, wilson
from da6401.metrics.scores import check_defined, score
from da6401.registry import METRICS, OF_VALIDATION
from da6401.runs.run_folder import RunResult
from da6401.training.arithmetic import Arithmetic
from da6401.training.ranks import Ranks
from da6401.training.signals import StopFlag


@dataclass(frozen=True)
class Evaluation:
    """Sums over all images, divided once at the end."""

    loss: float  # mean cross-entropy in nats, without label smoothing or class weights
    accuracy: float  # 0..1, ties go to the lower class
    probabilities_NK: Tensor  # float32, on the CPU
    labels_N: Tensor

    def score(self, name: str) -> float:
        """One of the metrics that trainer.metric names. Raises UndefinedMetricError where it has no value."""
        return score(name, self.labels_N.numpy(), self.probabilities_NK.numpy())

    def values(self, names: Sequence[str]) -> dict[str, float]:
        """Loss, accuracy and these metrics as metrics.jsonl names them; raises as ``score``."""
        scores = {OF_VALIDATION + name: self.score(name) for name in names}
        return {"val_loss": self.loss, "val_accuracy": self.accuracy, **scores}


def scores_by_epoch(cfg: RunConfig) -> list[str]:
    """The metrics that each epoch computes: what the best epoch is chosen by, and what the sweep optimises.

    Accuracy and loss are always there, and cost nothing.
    """
    if cfg.trainer.train_on == "all":
        return []
    asked = dict.fromkeys([OF_VALIDATION + cfg.trainer.metric, *cfg.sweep.objectives])
    return [name.removeprefix(OF_VALIDATION) for name in asked if name != "val_accuracy" and METRICS[name].of]


def check_metrics(cfg: RunConfig, data: TrainingData) -> None:
    """Refuse what the epochs' metrics cannot say of this validation split.

    Raises:
        UserError: a metric is undefined on it.
    """
    labels_N = data.validation.labels_N.numpy()
    check_defined(scores_by_epoch(cfg), labels_N, data.class_names, key="trainer.metric")


def reached(cfg: RunConfig, result: RunResult, *, images: int) -> str:
    """What a completed run reached on the validation split, of so many images, in words."""
    if result.val_accuracy is None:
        return "trained on all images: da6401 evaluate tells the test accuracy"
    text = f"validation accuracy {result.val_accuracy:.4f} ({span(wilson(result.val_accuracy, images))})"
    value = result.val_metrics.get(cfg.trainer.metric)
    if cfg.trainer.metric == "accuracy" or value is None:
        return text
    metric = chosen_metric(cfg.trainer.metric)
    return f"{word(metric.name)} {metric.text(value)}, {text.removeprefix('validation ')}"


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: ImageSet,
    arithmetic: Arithmetic,
    *,
    batch_size: int,
    first_stage: int = 0,
    stop: StopFlag | None = None,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Classify every image once, unaugmented, in eval mode; the model's mode is restored after it.

    Args:
        first_stage: ``images`` are images where it is 0, and else the inputs of this stage.
        ranks: each of them answers its part, and all know the answers.

    Raises:
        InterruptedRun, TrialTimeoutError: ``stop`` asks for the end.
    """
    was_training = model.training
    model.eval()
    if ranks is not None:
        ranks.share_buffers(model)
    logits, rows = [], []
    device = arithmetic.device
    at_once = batches_at_once(images.images_NCHW.shape[1:].numel(), batch_size, device)
    batch_size, part = (batch_size, None) if ranks is None else (batch_size * ranks.count, ranks.part)
    for group in batches(images, batch_size=batch_size, device=device, shuffle=None, at_once=at_once, part=part):
        rows.append(group.rows_B)
        for images_BCHW, _ in group.steps(group.images_BCHW):
            if stop is not None:
                stop.check()
            x = arithmetic.in_layout(images_BCHW if first_stage else images_BCHW.float().div_(255))
            with arithmetic.autocast():
                logits.append((model(x, first_stage) if first_stage else model(x)).float())
    model.train(was_training)
    logits_NK, labels_N = torch.cat(logits), images.labels_N
    if ranks is not None:
        logits_NK = _everyones(logits_NK, torch.cat(rows), len(labels_N), ranks)
    logits_NK = logits_NK.cpu()
    return Evaluation(
        loss=float(F.cross_entropy(logits_NK.double(), labels_N)),
        accuracy=int((logits_NK.argmax(1) == labels_N).sum()) / len(labels_N),
        probabilities_NK=logits_NK.softmax(1),
        labels_N=labels_N,
    )


def _everyones(logits_NK: Tensor, rows_N: Tensor, count: int, ranks: Ranks) -> Tensor:
    """The logits of all rows, each from a rank that has it."""
    whole_NK = logits_NK.new_zeros(2, count, logits_NK.shape[1])  # sums, and by how many ranks
    whole_NK[0, rows_N], whole_NK[1, rows_N] = logits_NK, 1.0
    ranks.add_up(whole_NK)
    return whole_NK[0] / whole_NK[1]
