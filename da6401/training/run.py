"""run: the arrow as code, from a configuration to a finished run folder."""

from __future__ import annotations

import logging
import time
import traceback
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from da6401.config.schema import RunConfig
from da6401.config.validate import tree_of
from da6401.data.sources import load_training_data
from da6401.errors import DivergedError, InterruptedRun, MachineError, PrunedError, UserError
from da6401.models.build import build_model
from da6401.models.counts import check_batch_norm, count, count_stages, describe
from da6401.models.freezing import describe_schedule, freeze_plan
from da6401.redact import redacted
from da6401.runs.atomic_files import write_json, write_text, write_yaml
from da6401.runs.predictions import Predictions, write_predictions
from da6401.runs.run_folder import (
    BEST,
    CONFIG,
    PREVIOUS,
    PREVIOUS_BEST,
    RECEIPT,
    VALIDATION,
    RunResult,
    Status,
    write_metrics,
    write_result,
)
from da6401.runs.run_lock import can_resume, lock_run, refuse_links
from da6401.training.checkpoint import load_checkpoint, load_last, model_state, weights_sha256
from da6401.training.checkpoint_writer import settle_best
from da6401.training.device import choose_device, prepare, program, receipt, restore_torch_settings
from da6401.training.inputs import feeds_of
from da6401.training.loop import Watcher, fit
from da6401.training.machine_failures import as_user_error, explain_failures
from da6401.training.memory import PeakMemory
from da6401.training.signals import stop_on_signals
from da6401.training.state import History
from da6401.training.tracking import Tracker, open_tracker

log = logging.getLogger(__name__)


def run(
    cfg: RunConfig, out: Path, watcher: Watcher | None = None, *, files: Mapping[str, str] = MappingProxyType({})
) -> RunResult:
    """Train one configuration in its folder and say how it ended; an unfinished run of the same is taken up.

    Args:
        files: texts that go into the folder besides a run's own, by their names in it.

    Torch's global switches and random numbers are afterwards what they were.

    Raises:
        UserError: nothing was trained, or nothing can be: the message says what to mend. A MachineError among them:
            the run is unfinished, and another machine may go on with it.
        DivergedError, InterruptedRun, PrunedError: ended early; result.json says so, and its checkpoints are kept.
    """
    with restore_torch_settings(), explain_failures(cfg):
        return _run(cfg, out, watcher, files)


def _run(cfg: RunConfig, out: Path, watcher: Watcher | None, files: Mapping[str, str]) -> RunResult:
    started = time.perf_counter()
    tree = tree_of(cfg)
    refuse_links(out)
    can_resume(out, tree, resume=cfg.trainer.resume == "auto")  # refuses before anything is loaded or written
    program()  # now, when the code is loaded: the data may take an hour, and a commit that comes then is not what ran
    device = choose_device(cfg.device)
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    data = load_training_data(cfg.data)
    for note in data.notes:
        log.info(note)
    classes = list(data.class_names)
    memory = PeakMemory(device)
    model = build_model(cfg.model, num_classes=len(classes), image_size=cfg.data.image_size)
    model.apply_freeze_plan(freeze_plan(cfg.model, cfg.trainer.epochs))  # what trains by the end: so it is counted
    layers, shapes = count(model, cfg.data.image_size)
    check_batch_norm(layers, batch_size=min(cfg.trainer.batch_size, len(data.train.labels_N)))
    stages = count_stages(layers)
    schedule = describe_schedule(cfg.model, epochs=cfg.trainer.epochs)
    log.info("\n".join([describe(layers), *schedule]))
    macs = sum(layer.macs for layer in layers)
    feeds = feeds_of(cfg, model, data, stages, shapes=shapes, macs=macs, device=device)
    history = History()

    def finish(tracker: Tracker, status: Status, reason: str = "") -> RunResult:
        best = load_checkpoint(out / BEST) if status == "completed" else None
        result = RunResult(
            status=status, val_accuracy=history.val_accuracy, val_loss=history.val_loss, best_epoch=history.best_epoch,
            epochs_run=history.epochs_run, test_accuracy=None, test_loss=None,
            parameters=sum(stage.parameters for stage in stages), macs=macs,
            seconds=time.perf_counter() - started, reason=redacted(reason),
            weights_sha256=weights_sha256(model.state_dict()) if best else None,
            best_weights_sha256=weights_sha256(model_state(best)) if best else None,
            trainable_parameters=sum(stage.trainable_parameters for stage in stages), peak_memory_mb=memory.megabytes(),
        )  # fmt: skip
        write_json(out / RECEIPT, {**about, "features": feeds.facts})
        if best and "probabilities" in best:  # a run that an older version began has none
            labels_N, probabilities_NK = data.validation.labels_N.numpy(), best["probabilities"].numpy()
            answers = Predictions(data.class_names, data.validation.names, labels_N, probabilities_NK)
            write_predictions(out / VALIDATION, answers)
        write_result(out, result)
        tracker.finish(result, data.validation.picture)
        if status != "interrupted":  # nobody goes on from here: the checkpoints before the last have done their service
            (out / PREVIOUS).unlink(missing_ok=True)
            (out / PREVIOUS_BEST).unlink(missing_ok=True)
        return result

    with lock_run(out, tree, resume=cfg.trainer.resume == "auto") as resumes:
        resumed = load_last(out) if resumes else None
        if resumed is not None:
            history.restore(resumed)
            settle_best(out, history.best_epoch)
            started -= history.seconds
            log.info("going on after epoch %d, in %s", history.epochs_run, out)
        write_yaml(out / CONFIG, tree)
        for each, text in files.items():
            write_text(out / each, text)
        about = {
            **receipt(device=device, seed=cfg.seed, fingerprint=data.fingerprint, class_names=classes),
            "skipped": [vars(bad) for bad in data.skipped],
            "notes": data.notes,
            "stages": [vars(stage) for stage in stages],
        }
        write_json(out / RECEIPT, {**about, "features": feeds.facts})
        write_metrics(out, history.lines)
        name = f"{out.name}-{uuid.uuid4().hex[:8]}"
        track = open_tracker(cfg.tracking, run_id=name, name=out.name, group=cfg.study, config=tree, out=out)
        with stop_on_signals(watcher.limit if watcher else None) as stop, track as tracker:
            try:
                fit(
                    model, data, feeds=feeds, model_cfg=cfg.model, trainer=cfg.trainer, optimizer_cfg=cfg.optimizer,
                    schedule=cfg.schedule, augmentation=cfg.augmentation, seed=cfg.seed, device=device,
                    tracker=tracker, watcher=watcher, stop=stop, history=history,
                    about={"class_names": classes, "config": tree}, out=out, resumed=resumed,
                )  # fmt: skip
            except DivergedError as error:
                finish(tracker, "diverged", str(error))
                raise
            except PrunedError as error:
                finish(tracker, "pruned", str(error))
                raise
            except InterruptedRun as error:
                finish(tracker, "interrupted", str(error))
                raise
            except Exception as error:
                told = as_user_error(error, cfg)
                if not isinstance(told, MachineError):  # else unfinished: it goes on when that is mended, or elsewhere
                    finish(tracker, "failed", str(told) if isinstance(told, UserError) else traceback.format_exc())
                raise
            result = finish(tracker, "completed")
            log.info(
                "validation accuracy %.4f in epoch %d of %d, %.1f s, in %s",
                result.val_accuracy, result.best_epoch, result.epochs_run, result.seconds, out,
            )  # fmt: skip
    return result
