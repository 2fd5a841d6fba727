"""fit: the one training loop, the same for every model."""

# B batch, C = 3 channels, H = W side, K classes

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from da6401.config.schema import AugmentationConfig, OptimizerConfig, Precision, ScheduleConfig, TrainerConfig
from da6401.data.augment import Augmenter, mix
from da6401.data.batches import batch_rows, batches, seeded
from da6401.data.sources import TrainingData
from da6401.errors import ConfigError, DivergedError, InterruptedRun
from da6401.models.stages import StagedModel
from da6401.rundir import BEST, LAST, PREVIOUS, append_metrics
from da6401.runtime import StopFlag
from da6401.tracking import Tracker
from da6401.train.checkpoint import save_checkpoint
from da6401.train.evaluate import evaluate
from da6401.train.optim import WeightAverage, build_optimizer, lr_factor, set_learning_rate
from da6401.train.progress import EpochProgress, epoch_line
from da6401.train.state import EpochSums, History, TrainingState

log = logging.getLogger(__name__)

AUTOCAST: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
ORDER, AUGMENT, MIX = range(3)  # the purposes that have random numbers of their own


class Watcher(Protocol):
    """Whoever wants to know of a run's epochs while it goes on."""

    def epoch_done(self, epoch: int, val_accuracy: float) -> None:
        """Called after each epoch's files are written; PrunedError raised here ends the run."""


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
    watcher: Watcher | None,
    stop: StopFlag,
    history: History,
    about: Mapping[str, Any],
    out: Path,
    resumed: Mapping[str, Any] | None,
) -> None:
    """Train, and leave in ``out`` one line of metrics an epoch and the best and the last checkpoint.

    Args:
        history: updated after each epoch.
        about: plain values stored in the checkpoints beside the weights.
        resumed: the content of last.pt, from which the run goes on as if it had never stopped; None starts it.

    Raises:
        DivergedError: the loss is not finite; raised before the step that would spoil the weights.
        InterruptedRun: a signal came; last.pt holds the state of this moment.
        PrunedError: the watcher has seen enough.
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
    average = WeightAverage(model, trainer.ema_decay) if trainer.ema_decay > 0 else None
    scaler = torch.amp.GradScaler(device.type, enabled=trainer.precision == "fp16")
    state = TrainingState(model, optimizer, scaler, average, history, device, mixing=torch.Generator())
    if resumed is not None:
        state.restore(resumed)
    started = time.perf_counter() - history.seconds
    saved = time.perf_counter()
    class_weights_K = balanced_weights(data.train.labels_N, len(data.class_names)) if trainer.class_weights else None
    if class_weights_K is not None:
        class_weights_K = class_weights_K.to(device)
    count = len(data.train.labels_N)
    steps_per_epoch = len(batch_rows(count, trainer.batch_size, training=True))

    def loss_of(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        return F.cross_entropy(logits_BK, labels_B, class_weights_K, label_smoothing=trainer.label_smoothing)

    def step_on(pixels_BCHW: Tensor, targets: Sequence[tuple[Tensor, float]]) -> tuple[float, int]:
        """One step of the optimizer; the batch's loss, and how many of its first labels were right."""
        optimizer.zero_grad(set_to_none=True)
        total, correct, size = 0.0, 0, len(pixels_BCHW)
        for rows in torch.arange(size).tensor_split(min(history.parts, size)):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
                logits_BK = forward(pixels_BCHW[part].contiguous(memory_format=layout))
                losses = [share * loss_of(logits_BK, labels_B[part]) for labels_B, share in targets]
                loss = torch.stack(losses).sum() * (len(rows) / size)
            value = loss.item()
            if not math.isfinite(value):
                where = f"epoch {history.epochs_run + 1}, step {state.sums.batches + 1}"
                raise DivergedError(f"the loss is {value} in {where}: try a lower optimizer.lr")
            torch.autograd.backward(scaler.scale(loss))
            total += value
            correct += int((logits_BK.argmax(1) == targets[0][0][part]).sum())
        if trainer.clip_norm > 0:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        if average is not None:
            average.update(model)
        return total, correct

    def save(path: str, content: Mapping[str, Any]) -> None:
        nonlocal saved
        history.seconds = time.perf_counter() - started
        previous = out / PREVIOUS if path == LAST else None
        save_checkpoint(out / path, {**about, **content}, previous=previous)
        saved = time.perf_counter()

    for epoch in range(history.epochs_run + 1, trainer.epochs + 1):
        if trainer.patience and history.epochs_run - history.risen_epoch >= trainer.patience:
            log.info("stopped early: no better validation accuracy in %d epochs", trainer.patience)
            return
        # ---- one pass over the training images, from where a checkpoint left it ----
        epoch_started, images_before = time.perf_counter(), state.sums.images
        model.train()
        if state.sums.batches == 0:
            state.mixing.set_state(seeded(seed, MIX, epoch).get_state())
        augment = Augmenter(augmentation, count=count, generator=seeded(seed, AUGMENT, epoch))
        with EpochProgress(epoch, trainer.epochs, count, show=trainer.progress) as progress:
            order = seeded(seed, ORDER, epoch)
            stream = batches(data.train, batch_size=trainer.batch_size, device=device, shuffle=order)
            for batch in islice(stream, state.sums.batches, None):
                if stop.signum is not None:
                    save(LAST, state.checkpoint())
                    raise InterruptedRun(stop.signum)
                if trainer.checkpoint_minutes and time.perf_counter() - saved > 60 * trainer.checkpoint_minutes:
                    save(LAST, state.checkpoint())
                step = (epoch - 1) * steps_per_epoch + state.sums.batches
                factor = lr_factor(schedule, step, steps_per_epoch=steps_per_epoch, epochs=trainer.epochs)
                set_learning_rate(optimizer, factor)
                pixels_BCHW = augment(batch.images_BCHW, batch.rows_B)
                targets = [(batch.labels_B, 1.0)]
                if augmentation.mixup > 0 or augmentation.cutmix > 0:
                    pixels_BCHW, others, share = mix(pixels_BCHW, augmentation, state.mixing)
                    targets = [(batch.labels_B, share), (batch.labels_B[others.to(device)], 1 - share)]
                while True:
                    try:
                        loss, correct = step_on(pixels_BCHW, targets)
                        break
                    except torch.OutOfMemoryError:
                        if history.parts >= len(pixels_BCHW):
                            raise
                        history.parts *= 2
                        torch.cuda.empty_cache()
                        log.warning("out of memory: batches are computed in %d parts from here on", history.parts)
                state.sums.batches += 1
                state.sums.images += len(pixels_BCHW)
                state.sums.loss += loss * len(pixels_BCHW)
                state.sums.correct += correct
                progress.advance(state.sums.images, loss=state.sums.mean_loss, accuracy=state.sums.accuracy)
        train_seconds = time.perf_counter() - epoch_started

        # ---- validation ----
        kept = model if average is None else average.model
        try:
            result = evaluate(
                kept, data.validation, batch_size=trainer.batch_size, device=device,
                autocast_dtype=autocast_dtype, channels_last=trainer.channels_last, stop=stop,
            )  # fmt: skip
        except InterruptedRun:
            save(LAST, state.checkpoint())  # all batches of the epoch are done: it goes on with the validation
            raise
        if not math.isfinite(result.loss):
            raise DivergedError(f"the validation loss is {result.loss} in epoch {epoch}: try a lower optimizer.lr")

        # ---- what is kept of it ----
        line = {
            "epoch": epoch,
            "train_loss": state.sums.mean_loss,
            "train_accuracy": state.sums.accuracy,
            "val_loss": result.loss,
            "val_accuracy": result.accuracy,
            "lr": optimizer.param_groups[-1]["lr"],
            "images_per_second": (state.sums.images - images_before) / train_seconds,
            "seconds": time.perf_counter() - epoch_started,
        }
        better = history.add(line)
        state.sums = EpochSums()
        if better:
            save(BEST, {"model": kept.state_dict(), "epoch": epoch})
        save(LAST, state.checkpoint())
        append_metrics(out, line)
        tracker.log(epoch, line)
        log.info(epoch_line(line, epochs=trainer.epochs, better=better))
        if watcher is not None:
            watcher.epoch_done(epoch, result.accuracy)


def balanced_weights(labels_N: Tensor, classes: int) -> Tensor:
    """Class weights inverse to the class counts, with mean 1 over the images: N / (K n_k)."""
    counts_K = torch.bincount(labels_N, minlength=classes).clamp(min=1)
    return len(labels_N) / (classes * counts_K.float())
