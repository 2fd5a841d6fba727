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

from da6401.config.schema import AugmentationConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainerConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.data.augment.mixing import mix
from da6401.data.batches import batch_rows, batches, equal_parts, seeded
from da6401.data.sources import TrainingData
from da6401.errors import DivergedError, InterruptedRun
from da6401.models.freezing import freeze_plan, rate_factors
from da6401.models.stages import StagedModel
from da6401.runs.run_folder import append_metrics
from da6401.training.checkpoint_writer import Keeper
from da6401.training.device import check_precision
from da6401.training.features import Feed, Feeds
from da6401.training.optim import WeightAverage, build_optimizer, lr_factor, set_learning_rate
from da6401.training.progress import EpochProgress, epoch_line
from da6401.training.signals import StopFlag, TimeLimit
from da6401.training.state import EpochSums, History, TrainingState
from da6401.training.tracking import Tracker
from da6401.training.validation import AUTOCAST, Evaluation, evaluate, laid_out

log = logging.getLogger(__name__)

ORDER, AUGMENT, MIX = range(3)  # the purposes that have random numbers of their own


class Watcher(Protocol):
    """Whoever wants to know of a run's epochs while it goes on, and may limit its time."""

    limit: TimeLimit | None

    def epoch_done(self, epoch: int, values: Mapping[str, float]) -> None:
        """Called after each epoch's files are written, with its numbers in metrics.jsonl; PrunedError ends the run."""


def fit(
    model: StagedModel,
    data: TrainingData,
    *,
    feeds: Feeds,
    model_cfg: ModelConfig,
    trainer: TrainerConfig,
    optimizer_cfg: OptimizerConfig,
    schedule: ScheduleConfig,
    augmentation: AugmentationConfig,
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
        feeds: what the epochs are fed with: pictures, or what the frozen stages make of them.
        model_cfg: which stages train when, and how fast.
        history: updated after each epoch.
        about: plain values stored in the checkpoints beside the weights.
        resumed: the content of last.pt, from which the run goes on as if it had never stopped; None starts it.

    Raises:
        DivergedError: the loss is not finite; raised before the step that would spoil the weights.
        InterruptedRun: a signal came; last.pt holds the state of this moment.
        TrialTimeoutError: the watcher's limit of time is over.
        PrunedError: the watcher has seen enough.
        ConfigError: a precision that the device does not have.
    """
    check_precision(trainer.precision, device)
    autocast_dtype = AUTOCAST[trainer.precision]
    layout = torch.channels_last if trainer.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    model.apply_freeze_plan(freeze_plan(model_cfg, trainer.epochs))  # all that will ever train
    if trainer.compile:
        torch.use_deterministic_algorithms(
            trainer.deterministic
        )  # the compiler's own setting, too: see runtime.prepare
    forward = torch.compile(model) if trainer.compile else model
    moving = model.trainable_state()
    groups = model.parameter_groups()
    rates = rate_factors(model_cfg, len(groups.stages))
    optimizer = build_optimizer(
        optimizer_cfg,
        stages=[(group.values(), rate) for group, rate in zip(groups.stages, rates, strict=True)],
        head=groups.head.values(),
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    average = WeightAverage(model, trainer.ema_decay, moving) if trainer.ema_decay > 0 else None
    kept = model if average is None else average.model  # what is validated and kept
    scaler = torch.amp.GradScaler(device.type, enabled=trainer.precision == "fp16")
    state = TrainingState(model, optimizer, scaler, average, history, device, mixing=torch.Generator())
    if resumed is not None:
        state.restore(resumed)
    started = time.perf_counter() - history.seconds
    states = {id(each): each.state_dict() for each in (model, kept)}.values()
    still = [tensor for each in states for name, tensor in each.items() if name not in moving]
    keeper = Keeper(out, about, model=kept.state_dict(), still=still)
    class_weights_K = balanced_weights(data.train.labels_N, len(data.class_names)) if trainer.class_weights else None
    if class_weights_K is not None:
        class_weights_K = class_weights_K.to(device)
    count = len(data.train.labels_N)
    steps_per_epoch = len(batch_rows(count, trainer.batch_size, training=True))

    def loss_of(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        return F.cross_entropy(logits_BK, labels_B, class_weights_K, label_smoothing=trainer.label_smoothing)

    def step_on(inputs: Tensor, targets: Sequence[tuple[Tensor, float]], *, first: int) -> tuple[float, int]:
        """One step of the optimizer; the batch's loss, and how many of its first labels were right."""
        optimizer.zero_grad(set_to_none=True)
        total, correct, size = 0.0, 0, len(inputs)
        for part in equal_parts(size, history.parts):
            with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
                x = laid_out(inputs[part], channels_last=trainer.channels_last)
                logits_BK = forward(x, first) if first else forward(x)
                losses = [share * loss_of(logits_BK, labels_B[part]) for labels_B, share in targets]
                loss = torch.stack(losses).sum() * ((part.stop - part.start) / size)
            value = loss.item()
            if not math.isfinite(value):
                where = f"epoch {history.epochs_run + 1}, step {state.sums.batches + 1}"
                raise DivergedError(f"the loss is {value} in {where}: try a lower optimizer.lr")
            torch.autograd.backward(scaler.scale(loss))
            total += value
            correct += int((logits_BK.argmax(1) == targets[0][0][part]).sum())
        if trainer.clip_norm > 0:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(trained, trainer.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        if average is not None:
            average.update()
        return total, correct

    def keep(*, best: Evaluation | None = None, now: bool = False) -> None:
        history.seconds = time.perf_counter() - started
        content = None
        if best is not None:
            content = {"model": kept.state_dict(), "epoch": history.epochs_run, "probabilities": best.probabilities_NK}
        keeper.keep(state.checkpoint(), best=content, now=now)

    feed: Feed | None = None
    try:
        for epoch in range(history.epochs_run + 1, trainer.epochs + 1):
            if trainer.patience and history.epochs_run - history.risen_epoch >= trainer.patience:
                log.info("stopped early: no better validation accuracy in %d epochs", trainer.patience)
                return
            plan = freeze_plan(model_cfg, epoch)
            if feed is None or plan != model.plan:
                model.apply_freeze_plan(plan)
                feed = feeds.open(plan.depth, stop=stop)

            # ---- one pass over the training images, from where a checkpoint left it ----
            epoch_started, images_before = time.perf_counter(), state.sums.images
            model.train()
            if state.sums.batches == 0:
                state.mixing.set_state(seeded(seed, MIX, epoch).get_state())
            augment = Augmenter(augmentation, count=count, generator=seeded(seed, AUGMENT, epoch))
            images = feed.images_of(epoch, torch.randperm(count, generator=seeded(seed, ORDER, epoch)), augment)
            with EpochProgress(epoch, trainer.epochs, count, show=trainer.progress) as progress:
                order = seeded(seed, ORDER, epoch)
                stream = batches(images, batch_size=trainer.batch_size, device=device, shuffle=order)
                for batch in islice(stream, state.sums.batches, None):
                    try:
                        stop.step_begins()
                    except InterruptedRun:
                        keep(now=True)
                        raise
                    if trainer.checkpoint_minutes and keeper.age > 60 * trainer.checkpoint_minutes:
                        keep(now=True)
                    step = (epoch - 1) * steps_per_epoch + state.sums.batches
                    factor = lr_factor(schedule, step, steps_per_epoch=steps_per_epoch, epochs=trainer.epochs)
                    set_learning_rate(optimizer, factor)
                    inputs = feed.inputs(batch, augment)
                    targets = [(batch.labels_B, 1.0)]
                    if augmentation.mixup > 0 or augmentation.cutmix > 0:
                        inputs, others, share = mix(inputs, augmentation, state.mixing)
                        targets = [(batch.labels_B, share), (batch.labels_B[others.to(device)], 1 - share)]
                    while True:
                        try:
                            loss, correct = step_on(inputs, targets, first=feed.cut)
                            break
                        except torch.OutOfMemoryError:
                            if history.parts >= len(inputs):
                                raise
                            history.parts *= 2
                            torch.cuda.empty_cache()
                            log.warning("out of memory: batches are computed in %d parts from here on", history.parts)
                    state.sums.batches += 1
                    state.sums.images += len(inputs)
                    state.sums.loss += loss * len(inputs)
                    state.sums.correct += correct
                    progress.advance(state.sums.images, loss=state.sums.mean_loss, accuracy=state.sums.accuracy)
            train_seconds = time.perf_counter() - epoch_started

            # ---- validation ----
            try:
                result = evaluate(
                    kept, feed.validation, batch_size=trainer.batch_size, device=device, autocast_dtype=autocast_dtype,
                    channels_last=trainer.channels_last, first=feed.cut, stop=stop,
                )  # fmt: skip
            except InterruptedRun:
                keep(now=True)  # all batches of the epoch are done: it goes on with the validation
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
            keep(best=result if better else None)
            append_metrics(out, line)
            tracker.log(epoch, line)
            log.info(epoch_line(line, epochs=trainer.epochs, better=better))
            if watcher is not None:
                watcher.epoch_done(epoch, line)
    finally:
        keeper.flush()


def balanced_weights(labels_N: Tensor, classes: int) -> Tensor:
    """Class weights inverse to the class counts, with mean 1 over the images: N / (K n_k)."""
    counts_K = torch.bincount(labels_N, minlength=classes).clamp(min=1)
    return len(labels_N) / (classes * counts_K.float())
