"""Weights & Biases, kept at arm's length: it sees every number and can neither stop nor slow the training.

The run folder's own ``metrics.jsonl`` is the training loop's; a tracker only copies the numbers elsewhere. All of
wandb, its import included, runs on one daemon thread behind a bounded queue, so a dead network, a hanging service or
an exception in there costs the run one warning, and at its end at most ``tracking.timeout`` seconds.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from da6401.config.schema import TrackingConfig

if TYPE_CHECKING:
    import wandb

_log = logging.getLogger(__name__)

QUEUE_LIMIT = 10_000
"""Numbers waiting for a hanging wandb, in log() calls: some MB of memory, then newer ones are left out."""


class Tracker(Protocol):
    """Where a run's numbers go besides its folder."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at a step (steps rise); NaN is a value like others. Never blocks, never raises."""

    def close(self) -> None:
        """No more values; a second call does nothing."""


class LocalTracker:
    """The run folder is enough."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
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
        config: the resolved configuration, nested plain values.
        out: the run folder; wandb's files go to out/wandb.
    """
    if cfg.backend == "local":
        yield LocalTracker()
        return
    tracker = WandbTracker(cfg, run_id=run_id, name=name, group=group, config=config, out=out)
    exit_code = 1  # what W&B shows as "failed": an exception passes through here
    try:
        yield tracker
        exit_code = 0
    finally:
        tracker.close(exit_code)


class WandbTracker:
    """One W&B run, started, fed and finished by a thread of its own; several may live in one process."""

    def __init__(
        self, cfg: TrackingConfig, *, run_id: str, name: str, group: str, config: Mapping[str, object], out: Path
    ) -> None:
        self._cfg = cfg
        self._run_id = re.sub(r"[/\\#?%:]", "-", run_id)  # characters that W&B refuses in an id
        self._name = name
        self._group = group
        self._config = dict(config)
        self._out = out.resolve()  # the working folder may have changed when the thread gets to it
        self._queue: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue()  # None: no more values
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
        if self._closed or self._left_out.is_set():
            return
        if self._queue.qsize() >= QUEUE_LIMIT:
            self._leave_out(f"it has not taken {QUEUE_LIMIT} values that wait for it")
            return
        self._queue.put_nowait((step, dict(values)))

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
                _free_exit()

    def _leave_out(self, reason: str) -> None:
        if not self._left_out.is_set():
            self._left_out.set()
            _log.warning("W&B is left out of this run, which goes on: %s. The run folder has every number.", reason)

    def _work(self) -> None:
        """The thread: everything that touches wandb, and the only place that does."""
        try:
            run = self._start()
            try:
                while (item := self._queue.get()) is not None:
                    step, values = item
                    run.log(values, step=step)
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
        if self._cfg.mode == "offline":
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
            name=self._name,
            group=self._group or None,
            config=self._config,
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


def _free_exit() -> None:
    """Keep a hanging wandb from holding the end of this process up.

    wandb's own exit hook waits for its service process without a limit, and that process holds our stdout open, so
    a pipe behind the program would wait as well. There is no public way to give either up.
    """
    setup = sys.modules.get("wandb.sdk.wandb_setup")
    connection = getattr(getattr(setup, "_singleton", None), "_connection", None)
    forget_hook = getattr(connection, "_cleanup", None)
    process = getattr(getattr(connection, "_proc", None), "_process", None)
    if forget_hook is not None and process is not None:
        forget_hook()
        atexit.register(process.kill)  # at the exit: later runs of this process may still find it well
