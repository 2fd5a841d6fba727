"""Workers of a sweep whose trainings are simulated: everything else of the command is real.

They are forked from a process that has imported torch and done nothing else, so that one starts in a moment. The
benchmarks of sweeps and the tests of storages use them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import da6401.training.run
from da6401.config.schema import RunConfig
from da6401.runs.run_folder import RunResult, write_result
from da6401.training.loop import Watcher

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["benchmarks.simulated", "da6401.cli", "da6401.sweep.scheduler"])


def simulate(*, seconds: float, epochs: int, ended: Callable[[], None] = lambda: None) -> None:
    """From now on a run of this process sleeps, reports so many epochs, and leaves its result.

    Args:
        seconds: of a run in all.
        ended: called at the end of each.
    """

    def simulated(cfg: RunConfig, out: Path, watcher: Watcher | None = None, *, files: Mapping[str, str]) -> RunResult:
        value = cfg.optimizer.lr * (1 - cfg.model.dropout)
        for epoch in range(1, epochs + 1):
            time.sleep(seconds / epochs)
            if watcher is not None:
                watcher.epoch_done(epoch, {"val_accuracy": value, "val_loss": 1.0})
        result = RunResult(
            status="completed", val_accuracy=value, val_loss=1.0, best_epoch=1, epochs_run=epochs, test_accuracy=None,
            test_loss=None, parameters=1, macs=1, seconds=seconds, reason="",
        )  # fmt: skip
        write_result(out, result)
        ended()
        return result

    setattr(da6401.training.run, "run", simulated)  # noqa: B010 (mypy knows what it replaces)


def start_worker(words: Sequence[str], *, place: Path, seconds: float, epochs: int = 2) -> BaseProcess:
    """`da6401 WORDS` with simulated runs, in a process of its own; what it prints goes to PLACE/<pid>.log."""
    process = FORKSERVER.Process(target=_work, args=(list(words), place, seconds, epochs))
    process.start()
    return process


def _work(words: Sequence[str], place: Path, seconds: float, epochs: int) -> None:
    from da6401.cli import main

    os.chdir(place)
    code = 1
    with open(place / f"{os.getpid()}.log", "w", buffering=1) as log:
        os.dup2(log.fileno(), 1)  # also for what writes to the streams as they were
        os.dup2(log.fileno(), 2)
    try:
        simulate(seconds=seconds, epochs=epochs)
        code = main(words)
    except BaseException:  # as the interpreter would show it
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)
