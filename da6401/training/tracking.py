"""Weights & Biases, kept at arm's length: it sees every number and can neither stop nor slow the training.

The run folder's own files are the training's; a tracker only copies them elsewhere. All of wandb, its import
included, runs on one daemon thread behind a bounded queue, so a dead network, a hanging service or an exception in
there costs the run one warning, and at its end at most ``tracking.timeout`` seconds.
"""

# N images, K classes, S side in px

from __future__ import annotations

import dataclasses
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from da6401.config.schema import TrackingConfig
from da6401.errors import UserError
from da6401.redact import safe, safe_tree
from da6401.runs.predictions import Predictions, read_predictions
from da6401.runs.run_folder import CONFIG, METRICS, RECEIPT, RESULT, SUMMARY, VALIDATION_CSV, RunResult, flat, read_json
from da6401.training.wandb_internals import leave_service

if TYPE_CHECKING:
    import wandb

_log = logging.getLogger(__name__)

QUEUE_LIMIT = 10_000  # log() calls waiting for a hanging wandb: some MB of memory, then newer ones are left out
MOST_MISTAKES = 30  # rows of the table of mistakes, the most confident first
THUMBNAIL = 96  # px, the side of a picture in it: some 3 kB each
MOST_CLASSES = 100  # of the confusion matrix: it is a table of K x K rows, and W&B cuts off after 10,000
LARGEST_FILE = 10 * 2**20  # bytes of a file in an artifact
# What makes a run again and says how it went. No weights: those of all trials would be gigabytes to upload.
RUN_FILES = (CONFIG, RECEIPT, METRICS, RESULT, VALIDATION_CSV)
SWEEP_FILES = (SUMMARY, "best.yaml", "report.html", "curve.csv", "curve.png")

Picture = Callable[[int], npt.NDArray[np.uint8]]  # the validation image of a row as RGB (S, S, 3), 0..255


class Tracker(Protocol):
    """Where a run's numbers go besides its folder."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at a step (steps rise); NaN is a value like others. Never blocks, never raises."""

    def finish(self, result: RunResult, picture: Picture) -> None:
        """Record how the run ended, after its folder is written. Never blocks, never raises."""

    def close(self) -> None:
        """No more values; a second call does nothing."""


class LocalTracker:
    """The run folder is enough."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def finish(self, result: RunResult, picture: Picture) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def open_tracker(
    cfg: TrackingConfig, *, run_id: str, name: str, group: str, config: Mapping[str, object], out: Path
) -> Iterator[Tracker]:
    """The configured tracker, closed at the end of the block.

    Args:
        run_id: unique within the W&B project; runs with equal ids would be one run there.
        name: what W&B shows for the run.
        group: what W&B gathers runs by, a study's name; empty for none.
        config: the resolved configuration, nested plain values; W&B gets it under dotted keys, the axes of its charts.
        out: the run folder; wandb's files go to out/wandb.
    """
    if cfg.backend == "local" or _is_disabled():
        yield LocalTracker()
        return
    keys = flat(config)
    part = "part_a" if keys["model.name"] == "cnn" else "part_b"
    tracker = WandbTracker(
        cfg, run_id=run_id, name=name, group=group, job_type="train", tags=[part], config=keys, out=out
    )
    exit_code = 1  # what W&B shows as "failed": an exception passes through here
    try:
        yield tracker
        exit_code = 0
    finally:
        tracker.close(exit_code)


def track_sweep(cfg: TrackingConfig, *, study: str, folder: Path) -> None:
    """A finished sweep as a W&B run beside its trials': sweep.json as its summary, its files and page as an artifact.

    Never raises; waits for wandb ``tracking.timeout`` seconds at the most.
    """
    if cfg.backend == "local" or _is_disabled():
        return
    tracker = WandbTracker(
        cfg, run_id=f"{study}-sweep-{time.time_ns():x}", name=study, group=study, job_type="sweep", tags=[],
        config={}, out=folder,
    )  # fmt: skip
    tracker.put(partial(_show_sweep, folder=folder.resolve()))
    tracker.close()


def _is_disabled() -> bool:
    """Whether the environment switches W&B off, as its users know it from elsewhere."""
    return os.environ.get("WANDB_MODE") == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1")


class WandbTracker:
    """One W&B run, started, fed and finished by a thread of its own; several may live in one process."""

    def __init__(
        self, cfg: TrackingConfig, *, run_id: str, name: str, group: str, job_type: str, tags: Sequence[str],
        config: Mapping[str, object], out: Path,
    ) -> None:  # fmt: skip
        self._cfg = cfg
        self._run_id = re.sub(r"[/\\#?%:]", "-", run_id)  # characters that W&B refuses in an id
        self._about = {"name": name, "group": group or None, "job_type": job_type, "tags": list(tags)}
        self._config = {key: safe_tree(value) for key, value in config.items()}
        self._out = out.resolve()  # the working folder may have changed when the thread gets to it
        self._queue: queue.Queue[Callable[[wandb.Run], object] | None] = queue.Queue()  # None: no more
        self._exit_code = 1
        self._closed = False
        self._left_out = threading.Event()  # wandb has failed or hangs: the run goes on without it
        self._imported = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wandb-tracker", daemon=True)
        start = time.monotonic()
        self._thread.start()
        self._imported.wait(cfg.timeout)  # two threads importing at once can see each other's half-made modules
        self._patience = max(0.0, cfg.timeout - (time.monotonic() - start))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        taken = dict(values)
        # Committed at once: a row that waits for the next step would later put its values over the summary's.
        self.put(lambda run: run.log(taken, step=step, commit=True))

    def finish(self, result: RunResult, picture: Picture) -> None:
        self.put(partial(_show_run, out=self._out, result=result, picture=picture))

    def put(self, action: Callable[[wandb.Run], object]) -> None:
        """Have the thread do something to the run, in its turn."""
        if self._closed or self._left_out.is_set():
            return
        if self._queue.qsize() >= QUEUE_LIMIT:
            self._leave_out(f"it has not taken {QUEUE_LIMIT} values that wait for it")
            return
        self._queue.put_nowait(action)

    def close(self, exit_code: int = 0) -> None:
        """Wait for wandb to take what was logged, ``tracking.timeout`` seconds at the most, then go on without it."""
        if self._closed:
            return
        self._closed = True
        self._exit_code = exit_code
        self._queue.put_nowait(None)
        try:
            self._thread.join(self._patience)
        finally:  # an impatient Ctrl-C lands here too
            if self._thread.is_alive():
                self._leave_out(f"it did not finish within tracking.timeout={self._cfg.timeout:g} s")
                if self._imported.is_set():
                    _leave_service()

    def _leave_out(self, reason: str) -> None:
        if not self._left_out.is_set():
            self._left_out.set()
            _log.warning("W&B is left out of this run, which goes on: %s. The run folder has every number.", reason)

    def _work(self) -> None:
        """The thread: everything that touches wandb, and the only place that does."""
        try:
            run = self._start()
            try:
                while (action := self._queue.get()) is not None:
                    action(run)
            finally:
                run.finish(exit_code=self._exit_code)
        except BaseException as problem:  # SystemExit as well: nothing in here may end the run
            self._leave_out(f"{type(problem).__name__}: {problem}")
            return
        if run.offline:
            _log.info("W&B run written; upload it with: wandb sync %s", Path(run.dir).parent)
        else:
            _log.info("W&B run: %s", run.url)

    def _start(self) -> wandb.Run:
        """Begin the run: online where that is asked for, logged in and answered, else offline."""
        # Without this even an offline run reports its errors and its existence over the network.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb  # seconds on a slow core, and only this backend needs it
        finally:
            self._imported.set()
        if self._cfg.mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
            return self._init("offline", self._run_id)
        wandb.setup(wandb.Settings(silent=True))
        if not wandb.login(prompt=False, verify=False):
            _log.warning("W&B has no login here: this run is recorded offline. To go online: wandb login")
            return self._init("offline", self._run_id)
        try:
            return self._init("online", self._run_id)
        except Exception as problem:
            _log.warning("W&B cannot be reached, this run is recorded offline: %s", problem)
            return self._init("offline", f"{self._run_id}-offline")  # the service holds on to the first id

    def _init(self, mode: Literal["offline", "online"], run_id: str) -> wandb.Run:
        import wandb

        half = self._cfg.timeout / 2  # a start that fails leaves time to record offline
        return wandb.init(
            project=self._cfg.project,
            entity=self._cfg.entity or None,
            id=run_id,
            config=self._config,
            **self._about,  # type: ignore[arg-type]
            dir=self._out,
            mode=mode,
            reinit="create_new",  # the default returns the first run of this process
            save_code=False,
            settings=wandb.Settings(
                console="off",  # stdout and stderr stay the program's
                silent=True,
                disable_code=True,
                disable_git=True,  # the receipt has the commit
                init_timeout=half,
                finish_timeout=half,
            ),
        )


def _leave_service() -> None:
    try:
        leave_service()
    except UserError as problem:  # the run itself went well
        _log.warning("This process may not end before wandb does: %s", problem)


def _show_run(run: wandb.Run, *, out: Path, result: RunResult, picture: Picture) -> None:
    """The run's summary (the metrics are the best epoch's), charts of its answers, and its files as an artifact."""
    import wandb

    run.summary.update({name: value for name, value in dataclasses.asdict(result).items() if value is not None})
    if (out / VALIDATION_CSV).is_file():
        answers = read_predictions(out / VALIDATION_CSV)
        charts: dict[str, object] = {"classes": _classes(answers), "mistakes": _mistakes(answers, picture)}
        if len(answers.class_names) <= MOST_CLASSES:
            charts["confusion"] = wandb.plot.confusion_matrix(
                y_true=answers.labels_N.tolist(),
                preds=answers.predicted.tolist(),
                class_names=[safe(name) for name in answers.class_names],
                title="Confusion matrix, validation",
            )
        run.log(charts)
    _add_files(run, kind="run", paths=[out / name for name in RUN_FILES])


def _classes(answers: Predictions) -> wandb.Table:
    """Precision and recall of each class; 0 where nothing was predicted, or nothing is there."""
    import wandb

    table = wandb.Table(columns=["class", "images", "precision", "recall"])
    for score in answers.by_class():
        table.add_data(safe(score.name), score.images, score.precision or 0.0, score.recall or 0.0)
    return table


def _mistakes(answers: Predictions, picture: Picture) -> wandb.Table:
    """The most confident mistakes, with their pictures."""
    import wandb
    from PIL import Image

    table = wandb.Table(columns=["image", "file", "class", "predicted", "confidence"])
    for each in answers.mistakes()[:MOST_MISTAKES]:
        image = wandb.Image(Image.fromarray(picture(each.row)).resize((THUMBNAIL, THUMBNAIL)), file_type="jpg")
        table.add_data(image, *map(safe, (each.image, each.true, each.predicted)), each.confidence)
    return table


def _show_sweep(run: wandb.Run, *, folder: Path) -> None:
    summary = read_json(folder / SUMMARY)
    best = {f"best.{name}": value for name, value in summary["best"][0].items()} if summary["best"] else {}
    run.summary.update(flat({name: summary[name] for name in ("n_trials", "trials", "epochs_run", "seconds")} | best))
    _add_files(run, kind="sweep", paths=[folder / name for name in SWEEP_FILES])


def _add_files(run: wandb.Run, *, kind: str, paths: Sequence[Path]) -> None:
    """Log the files that are there, and not too large, as an artifact."""
    import wandb

    artifact = wandb.Artifact(f"{kind}-{re.sub(r'[^A-Za-z0-9_.-]', '-', run.id)}", type=kind)
    for path in paths:
        if path.is_file() and path.stat().st_size <= LARGEST_FILE:
            artifact.add_file(str(path))
    run.log_artifact(artifact)
