"""fit: the one training loop, the same for every model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from da6401.config.freeze_rules import mixes
from da6401.config.metrics import chosen_metric, word
from da6401.config.schema import AugmentationConfig, RunConfig
from da6401.config.validate import tree_of
from da6401.data.augment.augmenter import Augmenter
from da6401.data.augment.mixing import mix
from da6401.data.batches import batch_rows, seeded
from da6401.data.resident import send
from da6401.errors import DivergedError, InterruptedRun, OutOfTimeError, TrialTimeoutError
from da6401.models.freezing import FreezePlan, freeze_plan
from da6401.runs.run_folder import append_metrics
from da6401.training.balance import balanced_rows
from da6401.training.checkpoint_writer import Checkpoints, CheckpointWriter, NoCheckpoints
from da6401.training.epoch_inputs import EpochInputs, training_batches
from da6401.training.learner import Learner, Targets
from da6401.training.optim import EndAverage, set_learning_rate
from da6401.training.progress import EpochProgress, epoch_line
from da6401.training.ranks import Ranks
from da6401.training.schedules import lr_factor
from da6401.training.setup import TrainingSetup
from da6401.training.signals import StopFlag
from da6401.training.state import EpochSums, History
from da6401.training.tracking import Tracker
from da6401.training.validation import Evaluation, evaluate, scores_by_epoch

log = logging.getLogger(__name__)

ORDER, AUGMENT, MIX, SAMPLE, DROPOUT = range(5)  # the purposes that have random numbers of their own


class Watcher(Protocol):
    """Follows a run's epochs from outside."""

    def epoch_done(self, epoch: int, values: Mapping[str, float]) -> None:
        """Called after each epoch's files are written, with its numbers in metrics.jsonl; PrunedError ends the run."""


@dataclass(frozen=True)
class RunHooks:
    """What the loop calls besides training: where its numbers go, and what may end it early."""

    tracker: Tracker
    watcher: Watcher | None
    stop: StopFlag


@dataclass(frozen=True)
class EpochPlan:
    """How one epoch trains; known before it begins."""

    epoch: int  # from 1
    freeze: FreezePlan
    augmentation: AugmentationConfig
    averaged: int  # how many of the last epochs, whose weights are averaged, there are up to this one; 0 before them


def plan_epoch(cfg: RunConfig, epoch: int) -> EpochPlan:
    """A pure function of the configuration, so that a resumed run plans the same."""
    augmentation, epochs = cfg.augmentation, cfg.trainer.epochs
    if epoch > epochs - round(augmentation.plain_end * epochs):
        augmentation = AugmentationConfig(flip=augmentation.flip)
    averaged = max(0, epoch - epochs + round(cfg.trainer.average_end * epochs))
    return EpochPlan(epoch, freeze_plan(cfg.model, epoch), augmentation, averaged)


def fit(
    setup: TrainingSetup, hooks: RunHooks, history: History, *, out: Path, resumed: Mapping[str, Any] | None = None
) -> None:
    """Train, and leave in ``out`` one line of metrics an epoch and the best and the last checkpoint.

    Args:
        history: updated after each epoch.
        resumed: the content of last.pt, from which the run goes on as if it had never stopped; None starts it.

    Raises:
        DivergedError: the loss is not finite; no checkpoint holds the weights that it would spoil.
        InterruptedRun: a signal came; last.pt holds the state of this moment.
        TrialTimeoutError, OutOfTimeError: a time limit is over.
        PrunedError: the watcher ends the run.
        ConfigError: a precision that the device does not have.
    """
    cfg, trainer = setup.cfg, setup.cfg.trainer
    learner = Learner(setup, history)
    state = learner.state
    if resumed is not None:
        state.restore(resumed)
    about = {"class_names": list(setup.data.class_names), "config": tree_of(cfg)}
    leads = setup.ranks is None or setup.ranks.rank == 0
    checkpoints: Checkpoints = NoCheckpoints()
    if leads:
        checkpoints = CheckpointWriter(out, state, about=about, trainable=learner.trainable_names)
    by_epoch, metric = scores_by_epoch(cfg), chosen_metric(trainer.metric)
    inputs: EpochInputs | None = None
    try:
        for epoch in range(history.epochs_run + 1, trainer.epochs + 1):
            if trainer.patience and history.epochs_run - history.last_improved_epoch >= trainer.patience:
                log.info("stopped early: no better %s in %d epochs", word(metric.name), trainer.patience)
                return
            plan = plan_epoch(cfg, epoch)
            if inputs is None or plan.freeze != learner.model.plan:
                learner.freeze(plan.freeze)
                inputs = setup.inputs.open(plan.freeze.depth, stop=hooks.stop)

            # ---- one pass over the training images, from where a checkpoint left it ----
            epoch_started, images_before = time.perf_counter(), state.sums.images
            train_epoch(learner, inputs, plan, setup, stop=hooks.stop, checkpoints=checkpoints)
            train_seconds = time.perf_counter() - epoch_started

            # ---- validation, unless its images were trained on ----
            result: Evaluation | None = None
            if trainer.train_on == "train":
                try:
                    result = validate(state.validated_model, learner, inputs, setup, stop=hooks.stop)
                except InterruptedRun:
                    checkpoints.save(now=True)  # all batches of the epoch are done: the run resumes with the validation
                    raise
                if not math.isfinite(result.loss):
                    raise DivergedError(
                        f"the validation loss is {result.loss} in epoch {epoch}: try a lower optimizer.lr"
                    )

            # ---- checkpoints, metrics.jsonl, tracker, log, watcher ----
            line = {
                "epoch": epoch,
                "train_loss": state.sums.mean_loss,
                "train_accuracy": state.sums.accuracy,
                **(result.values(by_epoch) if result else {}),
                "lr": state.optimizer.param_groups[-1]["lr"],
                "images_per_second": (state.sums.images - images_before) / train_seconds,
                "seconds": time.perf_counter() - epoch_started,
            }
            better = history.add(line, metric)
            state.sums = EpochSums()
            if state.end_average is not None and plan.averaged:
                state.end_average.update(plan.averaged)
            kept = {"probabilities": result.probabilities_NK} if result else {}
            checkpoints.save(best=kept if better else None)
            if not leads:
                continue
            append_metrics(out, line)
            hooks.tracker.log(epoch, line)
            log.info(
                epoch_line(line, metric, epochs=trainer.epochs, images=len(setup.data.validation.names), better=better)
            )
            if hooks.watcher is not None:
                hooks.watcher.epoch_done(epoch, line)
        if state.end_average is not None:
            keep_end_average(state.end_average, learner, inputs, setup, stop=hooks.stop, checkpoints=checkpoints)
    finally:
        checkpoints.flush()


def validate(
    model: nn.Module, learner: Learner, inputs: EpochInputs, setup: TrainingSetup, *, stop: StopFlag
) -> Evaluation:
    """The learner's network, or an average of it, on the validation images; raises as evaluate."""
    return evaluate(
        model, inputs.validation, learner.arithmetic, batch_size=setup.cfg.trainer.batch_size,
        first_stage=inputs.first_stage, stop=stop, ranks=setup.ranks,
    )  # fmt: skip


def keep_end_average(
    average: EndAverage, learner: Learner, inputs: EpochInputs | None, setup: TrainingSetup, *,
    stop: StopFlag, checkpoints: Checkpoints,
) -> None:  # fmt: skip
    """Validate and keep the mean of the last epochs' weights, where there are two such epochs or more, all in it.

    Args:
        inputs: of the last epoch, where this process has trained one.

    Raises:
        InterruptedRun: a signal came; the training resumes with this.
    """
    cfg = setup.cfg
    last = plan_epoch(cfg, cfg.trainer.epochs)
    if average.epochs < max(2, last.averaged):
        return
    try:
        inputs = inputs or setup.inputs.open(last.freeze.depth, stop=stop)
        result = validate(average.model, learner, inputs, setup, stop=stop)
    except (TrialTimeoutError, OutOfTimeError):
        log.info("no time for the mean of the last epochs' weights")  # the training itself is complete
        return
    checkpoints.save_average(average.model.state_dict(), result.probabilities_NK)
    log.info(
        "the mean of the weights after the last %d epochs: validation accuracy %.4f, loss %.4f",
        last.averaged, result.accuracy, result.loss,
    )  # fmt: skip


def train_epoch(
    learner: Learner, inputs: EpochInputs, plan: EpochPlan, setup: TrainingSetup, *,
    stop: StopFlag, checkpoints: Checkpoints,
) -> None:  # fmt: skip
    """Train on each image that this epoch has not seen yet, once.

    Raises:
        InterruptedRun: a signal came before a batch; last.pt holds the state of this moment.
        DivergedError, TrialTimeoutError: as fit.
    """
    cfg, ranks, state, device = setup.cfg, setup.ranks, learner.state, learner.arithmetic.device
    trainer, count = cfg.trainer, inputs.count
    sizes = [len(rows) for rows in batch_rows(count, trainer.batch_size, training=True)]
    learner.model.train()
    if state.sums.batches == 0:
        state.mixing.set_state(seeded(cfg.seed, MIX, plan.epoch).get_state())
    augment = Augmenter(plan.augmentation, count=count, generator=seeded(cfg.seed, AUGMENT, plan.epoch))
    rows_N = torch.arange(count)
    if trainer.sampler == "balanced":
        rows_N = balanced_rows(learner.labels_N, seeded(cfg.seed, SAMPLE, plan.epoch))
    order_N = torch.randperm(count, generator=seeded(cfg.seed, ORDER, plan.epoch))
    images = inputs.images_of(plan.epoch, order_N, augment, rows_N)
    order = seeded(cfg.seed, ORDER, plan.epoch)
    done = state.sums.batches
    mixing = mixes(plan.augmentation)  # which needs all of a batch
    part = None if ranks is None or mixing else ranks.part
    stream = training_batches(
        inputs,
        images,
        augment,
        batch_size=trainer.batch_size,
        device=device,
        shuffle=order,
        first=done,
        part=part,
    )
    with EpochProgress(plan.epoch, trainer.epochs, count, show=trainer.progress) as progress:
        for number, (x, labels_B) in enumerate(stream, start=done):
            try:
                stop.step_begins()
            except InterruptedRun:
                learner.settle()
                checkpoints.save(now=True)
                raise
            if trainer.checkpoint_minutes and checkpoints.age > 60 * trainer.checkpoint_minutes:
                learner.settle()
                checkpoints.save(now=True)
            step = (plan.epoch - 1) * len(sizes) + number
            factor = lr_factor(cfg.schedule, step, steps_per_epoch=len(sizes), epochs=trainer.epochs)
            set_learning_rate(state.optimizer, factor)
            targets: Targets = [(labels_B, 1.0)]
            if mixing:
                x, others, share = mix(x, plan.augmentation, state.mixing)
                targets = [(labels_B, share), (labels_B[send(others, device)], 1 - share)]
            if ranks is not None:
                x, targets = _own_part(x, targets, ranks, cut=mixing)
                if ranks.rank:  # dropout differs in each, and goes on as before in a resumed run
                    torch.manual_seed(seeded(cfg.seed, DROPOUT, plan.epoch, number, ranks.rank).initial_seed())
            learner.step(x, targets, first_stage=inputs.first_stage, size=sizes[number])
            if state.sums.images:
                progress.advance(state.sums.images, loss=state.sums.mean_loss, accuracy=state.sums.accuracy)
        learner.settle()


def _own_part(x: Tensor, targets: Targets, ranks: Ranks, *, cut: bool) -> tuple[Tensor, Targets]:
    """A rank's rows of a whole batch, where ``cut``; else it has them already."""
    if not cut:
        return x, targets
    part = ranks.part(len(x))
    return x[part], [(labels_B[part], share) for labels_B, share in targets]
