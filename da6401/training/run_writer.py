"""What a run writes into its folder about itself: when it begins, and when it ends."""

from __future__ import annotations

import logging
import time
import traceback
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from da6401.config.schema import RunConfig
from da6401.config.validate import tree_of
from da6401.errors import DivergedError, InterruptedRun, MachineError, PluginError, PrunedError, UserError
from da6401.metrics.calibration import calibrate, write_calibration
from da6401.metrics.scores import Scored, scores_of
from da6401.models.counts import count_stages
from da6401.plugins.needed import copies
from da6401.redact import redacted
from da6401.runs.atomic_files import write_json, write_text, write_yaml
from da6401.runs.predictions import Predictions, write_predictions
from da6401.runs.run_folder import (
    BEST,
    CONFIG,
    PREVIOUS,
    PREVIOUS_BEST,
    RECEIPT,
    VALIDATION_CSV,
    RunResult,
    Status,
    write_metrics,
    write_result,
)
from da6401.runs.run_lock import refuse_other_data
from da6401.training.checkpoint import load_checkpoint, load_last, model_state, weights_sha256
from da6401.training.checkpoint_writer import settle_best
from da6401.training.machine_failures import as_user_error
from da6401.training.memory import PeakMemory
from da6401.training.receipt import receipt
from da6401.training.setup import TrainingSetup
from da6401.training.state import History
from da6401.training.tracking import Tracker, open_tracker

log = logging.getLogger(__name__)

ENDINGS: tuple[tuple[type[BaseException], Status], ...] = (
    (DivergedError, "diverged"),
    (PrunedError, "pruned"),
    (InterruptedRun, "interrupted"),
)


class RunWriter:
    """Keeps config.yaml, receipt.json, metrics.jsonl and result.json of a run up to date.

    Args:
        started: time.perf_counter() at the run's beginning.
    """

    def __init__(self, setup: TrainingSetup, out: Path, *, started: float, memory: PeakMemory) -> None:
        self.setup = setup
        self.out = out
        self.started = started
        self.memory = memory
        self.history = History()
        self.stages = count_stages(setup.counts.layers)
        self._receipt: dict[str, Any] = {}

    def begin(self, files: Mapping[str, str], *, resumes: bool) -> dict[str, Any] | None:
        """Write what is known before the first step; the last checkpoint, where the run resumes from it.

        Args:
            files: texts that go into the folder besides a run's own, by their names in it.

        Raises:
            RunError: the last checkpoint cannot be read. ChangedDataError: it is of a training on other images.
        """
        setup, out, history = self.setup, self.out, self.history
        if resumes:
            refuse_other_data(out, setup.data.fingerprint, setup.data.class_names)
        resumed = load_last(out) if resumes else None
        if resumed is not None:
            history.restore(resumed)
            settle_best(out, history.best_epoch)
            self.started -= history.seconds
            log.info("resuming after epoch %d, in %s", history.epochs_run, out)
        history.seconds = time.perf_counter() - self.started  # reading the images and building the network count, too
        write_yaml(out / CONFIG, tree_of(setup.cfg))
        for name, text in {**files, **copies()}.items():
            write_text(out / name, text)
        self._receipt = receipt(setup)
        self._write_receipt()
        write_metrics(out, history.lines)
        return resumed

    def tracker(self) -> AbstractContextManager[Tracker]:
        """The configured tracker of this run, closed at the end of the block."""
        cfg, name = self.setup.cfg, self.out.name
        run_id = f"{name}-{uuid.uuid4().hex[:8]}"
        return open_tracker(cfg.tracking, run_id=run_id, name=name, group=cfg.study, config=tree_of(cfg), out=self.out)

    def finish(self, tracker: Tracker, status: Status, reason: str = "") -> RunResult:
        """Write how the run ended; from now on it is finished."""
        setup, out, history = self.setup, self.out, self.history
        best = load_checkpoint(out / BEST) if status == "completed" else None
        predictions = self._predictions(best) if best else None
        scored = scores_of(predictions) if predictions else Scored()
        result = RunResult(
            status=status, val_accuracy=history.val_accuracy, val_loss=history.val_loss, best_epoch=history.best_epoch,
            epochs_run=history.epochs_run, test_accuracy=None, test_loss=None,
            parameters=sum(stage.parameters for stage in self.stages),
            macs=sum(layer.macs for layer in setup.counts.layers),
            seconds=time.perf_counter() - self.started, reason=redacted(reason),
            weights_sha256=weights_sha256(setup.model.state_dict()) if best else None,
            best_weights_sha256=weights_sha256(model_state(best)) if best else None,
            trainable_parameters=sum(stage.trainable_parameters for stage in self.stages),
            val_metrics=scored.values,
            undefined_metrics={f"val_metrics.{name}": why for name, why in scored.undefined.items()},
            peak_memory_mb=self.memory.megabytes(),
            batch_parts=history.parts,
        )  # fmt: skip
        self._write_receipt()
        write_metrics(out, history.lines)  # synced, now that no checkpoint will be written
        if predictions is not None:
            write_predictions(out / VALIDATION_CSV, predictions)
            write_calibration(out, calibrate(predictions))
        write_result(out, result)
        tracker.finish(result, setup.data.validation.picture)
        if status != "interrupted":  # the run will not resume: delete the backups
            (out / PREVIOUS).unlink(missing_ok=True)
            (out / PREVIOUS_BEST).unlink(missing_ok=True)
        return result

    def _predictions(self, best: Mapping[str, Any]) -> Predictions | None:
        """The best epoch's answers on the validation split; None for a run that trained on it, or began in an older
        version."""
        if "probabilities" not in best:
            return None
        validation = self.setup.data.validation
        labels_N, probabilities_NK = validation.labels_N.numpy(), best["probabilities"].numpy()
        return Predictions(self.setup.data.class_names, validation.names, labels_N, probabilities_NK)

    def _write_receipt(self) -> None:
        write_json(self.out / RECEIPT, {**self._receipt, "features": list(self.setup.inputs.facts.values())})


def ending_of(error: BaseException, cfg: RunConfig) -> tuple[Status, str] | None:
    """The status and the reason of a run that an exception ends.

    None where the run stays unfinished: a failure of the machine, after which it can resume here or elsewhere, or of a
    plugin, which can be mended.
    """
    for kind, status in ENDINGS:
        if isinstance(error, kind):
            return status, str(error)
    if not isinstance(error, Exception):
        return None
    shown = as_user_error(error, cfg)
    if isinstance(shown, (MachineError, PluginError)):
        return None
    return "failed", str(shown) if isinstance(shown, UserError) else "".join(traceback.format_exception(error))
