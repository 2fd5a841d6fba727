"""fit: the one training loop, the same for every model."""

# B batch, C = 3 channels, H = W side, K classes

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from da6401.config.schema import AugmentationConfig, OptimizerConfig, Precision, ScheduleConfig, TrainerConfig
from da6401.data.augment import Augmenter, mix
from da6401.data.batches import batch_rows, batches, seeded
from da6401.data.sources import TrainingData
from da6401.errors import ConfigError, DivergedError, InterruptedRun
from da6401.models.stages import StagedModel
from da6401.rundir import BEST, LAST, append_metrics
from da6401.runtime import StopFlag
from da6401.tracking import Tracker
from da6401.train.checkpoint import save_checkpoint
from da6401.train.evaluate import evaluate
from da6401.train.optim import WeightAverage, build_optimizer, lr_factor, set_learning_rate
from da6401.train.progress import EpochProgress, epoch_line

log = logging.getLogger(__name__)

AUTOCAST: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
ORDER, AUGMENT, MIX = range(3)  # the purposes that have random numbers of their own


@dataclass
class History:
    """What fit has reached so far; it lives outside fit, so that a run that dies can still say it."""

    epochs_run: int = 0
    best_epoch: int | None = None
    val_accuracy: float | None = None
    val_loss: float | None = None
    risen_epoch: int = 0  # the last with a higher validation accuracy than all before it

    def is_better(self, accuracy: float, loss: float) -> bool:
        """Higher validation accuracy wins; at the same accuracy the lower loss."""
        if self.val_accuracy is None or self.val_loss is None:
            return True
        return (accuracy, -loss) > (self.val_accuracy, -self.val_loss)


def fit(
    model: StagedModel,
    data: TrainingData,
    *,
    trainer: TrainerConfig,
    optimizer_cfg: OptimizerConfig,
    schedule: ScheduleConfig,
    augmentation: AugmentationConfig,
    backbone_lr_factor: float,
    seed: int,
    device: torch.device,
    tracker: Tracker,
    stop: StopFlag,
    history: History,
    about: Mapping[str, Any],
    out: Path,
) -> None:
    """Train, and leave in ``out`` one line of metrics an epoch and the best and the last checkpoint.

    Args:
        history: updated after each epoch.
        about: plain values stored in the checkpoints beside the weights.

    Raises:
        DivergedError: the loss is not finite; raised before the step that would spoil the weights.
        InterruptedRun: a signal came; last.pt holds the state of this moment.
        ConfigError: a precision that the device does not have.
    """
    if trainer.precision == "fp16" and device.type != "cuda":
        raise ConfigError([f"trainer.precision=fp16: needs CUDA, the device is {device}; use bf16 or fp32"])
    autocast_dtype = AUTOCAST[trainer.precision]
    layout = torch.channels_last if trainer.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    forward = torch.compile(model) if trainer.compile else model
    groups = model.parameter_groups()
    optimizer = build_optimizer(
        optimizer_cfg,
        backbone=groups.backbone.values(),
        head=groups.head.values(),
        backbone_lr_factor=backbone_lr_factor,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=trainer.precision == "fp16")
    average = WeightAverage(model, trainer.ema_decay) if trainer.ema_decay > 0 else None
    class_weights_K = balanced_weights(data.train.labels_N, len(data.class_names)) if trainer.class_weights else None
    if class_weights_K is not None:
        class_weights_K = class_weights_K.to(device)
    count = len(data.train.labels_N)
    steps_per_epoch = len(batch_rows(count, trainer.batch_size, training=True))

    def loss_of(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        return F.cross_entropy(logits_BK, labels_B, class_weights_K, label_smoothing=trainer.label_smoothing)

    def save(path: str, weights: Mapping[str, Tensor], **more: Any) -> None:
        save_checkpoint(out / path, {"model": dict(weights), "epoch": history.epochs_run, **about, **more})

    def save_last(batches_done: int) -> None:
        save(
            LAST, model.state_dict(), batches_done=batches_done, optimizer=optimizer.state_dict(),
            scaler=scaler.state_dict(), average=None if average is None else average.model.state_dict(),
        )  # fmt: skip

    for epoch in range(1, trainer.epochs + 1):
        # ---- one pass over the training images ----
        started = time.perf_counter()
        model.train()
        order = seeded(seed, ORDER, epoch)
        mixing = seeded(seed, MIX, epoch)
        augment = Augmenter(augmentation, count=count, generator=seeded(seed, AUGMENT, epoch))
        loss_sum, correct, seen = 0.0, 0, 0
        with EpochProgress(epoch, trainer.epochs, count, show=trainer.progress) as progress:
            stream = batches(data.train, batch_size=trainer.batch_size, device=device, shuffle=order)
            for index, batch in enumerate(stream):
                if stop.signum is not None:
                    save_last(batches_done=index)
                    raise InterruptedRun(stop.signum)
                step = (epoch - 1) * steps_per_epoch + index
                set_learning_rate(
                    optimizer, lr_factor(schedule, step, steps_per_epoch=steps_per_epoch, epochs=trainer.epochs)
                )
                labels_B = batch.labels_B
                pixels_BCHW = augment(batch.images_BCHW, batch.rows_B)
                second_B, share = labels_B, 1.0
                if augmentation.mixup > 0 or augmentation.cutmix > 0:
                    pixels_BCHW, mixed_order, share = mix(pixels_BCHW, augmentation, mixing)
                    second_B = labels_B[mixed_order.to(device)]
                with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
                    logits_BK = forward(pixels_BCHW.contiguous(memory_format=layout))
                    loss = loss_of(logits_BK, labels_B)
                    if share < 1:
                        loss = share * loss + (1 - share) * loss_of(logits_BK, second_B)
                value = loss.item()
                if not math.isfinite(value):
                    raise DivergedError(
                        f"the loss is {value} in epoch {epoch}, step {index + 1}: try a lower optimizer.lr"
                    )
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(scaler.scale(loss))
                if trainer.clip_norm > 0:
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                if average is not None:
                    average.update(model)
                loss_sum += value * len(labels_B)
                correct += int((logits_BK.argmax(1) == labels_B).sum())
                seen += len(labels_B)
                progress.advance(len(labels_B), loss=loss_sum / seen, accuracy=correct / seen)
        train_seconds = time.perf_counter() - started

        # ---- validation ----
        kept = model if average is None else average.model
        result = evaluate(
            kept, data.validation, batch_size=trainer.batch_size, device=device,
            autocast_dtype=autocast_dtype, channels_last=trainer.channels_last,
        )  # fmt: skip
        if not math.isfinite(result.loss):
            raise DivergedError(f"the validation loss is {result.loss} in epoch {epoch}: try a lower optimizer.lr")

        # ---- what is kept of it ----
        line = {
            "epoch": epoch,
            "train_loss": loss_sum / seen,
            "train_accuracy": correct / seen,
            "val_loss": result.loss,
            "val_accuracy": result.accuracy,
            "lr": optimizer.param_groups[-1]["lr"],
            "images_per_second": seen / train_seconds,
            "seconds": time.perf_counter() - started,
        }
        history.epochs_run = epoch
        if history.val_accuracy is None or result.accuracy > history.val_accuracy:
            history.risen_epoch = epoch
        better = history.is_better(result.accuracy, result.loss)
        if better:
            history.best_epoch, history.val_accuracy, history.val_loss = epoch, result.accuracy, result.loss
            save(BEST, kept.state_dict(), val_accuracy=result.accuracy)
        save_last(batches_done=0)
        append_metrics(out, line)
        tracker.log(epoch, line)
        log.info(epoch_line(line, epochs=trainer.epochs, better=better))
        if trainer.patience and epoch - history.risen_epoch >= trainer.patience:
            log.info("stopped early: no better validation accuracy in %d epochs", trainer.patience)
            return


def balanced_weights(labels_N: Tensor, classes: int) -> Tensor:
    """Class weights inverse to the class counts, with mean 1 over the images: N / (K n_k)."""
    counts_K = torch.bincount(labels_N, minlength=classes).clamp(min=1)
    return len(labels_N) / (classes * counts_K.float())
