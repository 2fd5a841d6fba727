"""Worker processes of a sweep: each runs the same command in its slot, and claims one trial after the other.

They are started here, or on other machines by one of Hydra's launchers (Ray, SLURM).
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from da6401.config.quoting import quote
from da6401.config.validate import value_problems
from da6401.errors import InterruptedRun, UserError
from da6401.machine.cores import available_cores
from da6401.machine.descriptors import close_with
from da6401.machine.parent_death import end_with_parent
from da6401.plugins.loading import words as plugin_words
from da6401.study.clock import BEGAN, Clock, spent_of
from da6401.sweep.jobs import launch
from da6401.training.signals import STOP_SIGNALS

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

SLOT = "DA6401_SLOT"  # in a worker's environment: its number, from 1
PIPE = "DA6401_PIPE"  # in a worker's environment: the pipe for its error message
SPENT = "DA6401_SWEEP_SPENT"  # seconds that earlier commands worked on its study
CHECKED = "DA6401_INPUTS_CHECKED"  # in a worker's environment: its leader has checked data, weights and device
POLL_SECONDS = 0.2
REASON_BYTES = 4096  # of a worker's error message: what a pipe accepts in one write
# The overrides that are for the leading process and not for its workers.
LEADERS = re.compile(r"(\+\+?)?(hydra/launcher=|hydra\.launcher\.|hydra\.sweeper\.n_jobs=)")


def is_worker() -> bool:
    """Whether another process leads the sweep."""
    return SLOT in os.environ


def slot() -> int:
    """This worker's number, from 1; 0 for a process that leads or is alone."""
    return int(os.environ.get(SLOT, 0))


@contextmanager
def report_error() -> Iterator[None]:
    """Send a UserError of the block to the process that started this worker, which may be on another machine."""
    try:
        yield
    except UserError as error:
        with suppress(KeyError, ValueError, OSError):
            os.write(int(os.environ[PIPE]), str(error).encode(errors="replace")[:REASON_BYTES])
        raise


@contextmanager
def one_clock() -> Iterator[None]:
    """Measure sweep.minutes and sweep.max_hours from the beginning of the block, also in workers and in restarted
    processes."""
    leads = BEGAN not in os.environ
    os.environ.setdefault(BEGAN, repr(time.time()))
    try:
        yield
    finally:
        if leads:
            del os.environ[BEGAN]
            os.environ.pop(SPENT, None)


def began() -> float:
    """When the sweep began, by this process's time.perf_counter()."""
    return time.perf_counter() - (time.time() - float(os.environ[BEGAN]))


def clock_of(study: optuna.Study, minutes: float) -> Clock:
    """The study's clock in this process; workers and restarted processes have that of their leader."""
    spent = float(os.environ.setdefault(SPENT, repr(spent_of(study))))
    return Clock(minutes, began=began(), spent=spent)


def same_study(folder: Path) -> list[str]:
    """Overrides with which the same command opens the same study, whose name may contain the time."""
    study = [] if value_problems("study", folder.name) else [f"study={folder.name}"]  # a user may choose any folder
    return [*study, f"hydra.sweep.dir={quote(str(folder))}"]


def run_workers(folder: Path, *, slots: int, gpus: str | list[int], retries: int) -> None:
    """Run this command in ``slots`` worker processes until the study has its total of trials.

    A worker that is killed is restarted, at most ``retries`` times per slot; the next worker resumes its trial. Slots
    get the GPUs in turn, so with more slots than GPUs several trials share one.

    Raises:
        InterruptedRun: a signal came; the workers have requeued their trials.
        UserError: workers ended with errors; the others went on to the end.
    """
    devices = _gpus(gpus)
    stopped: list[int] = []

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stopped.append(signum)

    previous = {signum: signal.signal(signum, on_signal) for signum in STOP_SIGNALS}
    workers = {number: _start(number, folder, slots, devices) for number in range(1, slots + 1)}
    starts, failures = dict.fromkeys(workers, 1), list[str]()
    try:
        while workers:
            time.sleep(POLL_SECONDS)
            if stopped:
                for process in workers.values():
                    process.send_signal(stopped[0])
                for process in workers.values():
                    process.wait()
                raise InterruptedRun(stopped[0])
            for number, process in list(workers.items()):
                code = process.poll()
                if code is None:
                    continue
                del workers[number]
                if code < 0 and starts[number] <= retries:  # killed: not an error of the command
                    starts[number] += 1
                    workers[number] = _start(number, folder, slots, devices)
                elif code:
                    failures.append(f"the worker in slot {number} ended {process.reason()}")
                    log.error("%s", failures[-1])
    finally:
        for process in workers.values():
            process.kill()
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if stopped:  # while the last worker ended
        raise InterruptedRun(stopped[0])
    if failures:
        raise UserError("\n".join(failures))


def launch_workers(launcher: Launcher, arguments: Sequence[str], *, folder: Path, slots: int) -> None:
    """Let one of Hydra's launchers run ``slots`` workers, each on the resources that the launcher's config asks for.

    Args:
        arguments: the command's overrides. Hydra composes a job from those that are not searched, and its sweeper keys
            (`sweep=part_b` sets some) must be the sweep's own.

    Raises:
        UserError: a worker ended with an error.
    """
    given = [each.input_line or "" for each in OverridesParser.create().parse_overrides(list(arguments))
             if not each.is_sweep_override()]  # fmt: skip
    subdir = "hydra.sweep.subdir=.workers/slot-${hydra.job.num}"  # not a trial's folder
    log.info("%d workers by hydra/launcher", slots)
    for job in launch(launcher, [[*given, *same_study(folder), subdir]] * slots, first=1):
        if job.error is not None:
            raise UserError(f"hydra/launcher: a worker has failed: {job.error}") from job.error


def slots_of(launcher: DictConfig, n_jobs: int) -> int:
    """How many workers a launcher is to run: hydra.sweeper.n_jobs, or where that is 1 joblib's own n_jobs."""
    own = launcher.get("n_jobs")
    if own is None or n_jobs > 1:
        return n_jobs
    return int(own) if own > 0 else max(1, available_cores() + 1 + int(own))


@dataclass(frozen=True)
class Slot:
    """Hydra's task of a worker that a launcher starts, on this machine or on another with the same files."""

    words: tuple[str, ...]  # of the command, without `da6401`
    folder: Path  # of the sweep
    place: Path  # where the command was given
    plugins: tuple[str, ...] = ()  # --plugin FILE ...

    def __call__(self, config: DictConfig) -> None:
        """Run the worker in its own process, where it has signals and a main thread.

        Raises:
            UserError: it ended with an exit code other than 0.
        """
        process = _worker(
            self.words, HydraConfig.get().job.num, self.folder, threads=_own_cores(), plugins=self.plugins,
            place=self.place,
        )  # fmt: skip
        try:
            code = process.wait()
        finally:  # where the launcher ends the job: the worker requeues its trial
            process.terminate()
            process.wait()
        if code:
            raise UserError(f"the worker in slot {HydraConfig.get().job.num} ended {process.reason()}")


class WorkerProcess(subprocess.Popen[bytes]):
    """A worker's process, and the pipe for its error message."""

    def __init__(self, words: Sequence[str], *, environment: Mapping[str, str], place: Path | None) -> None:
        self._pipe, theirs = os.pipe()
        close_with(self, self._pipe)
        os.set_blocking(self._pipe, False)
        try:
            # In a new session: Ctrl-C reaches only the leader, which passes it on once.
            super().__init__(
                words, cwd=place, env={**environment, PIPE: str(theirs)}, pass_fds=(theirs,), start_new_session=True,
                preexec_fn=end_with_parent,
            )  # fmt: skip
        finally:
            os.close(theirs)

    def reason(self) -> str:
        """How it ended: its exit code, and its error message where it sent one."""
        with suppress(BlockingIOError):
            message = os.read(self._pipe, REASON_BYTES).decode(errors="replace")
            if message:
                return f"with exit code {self.returncode}: {message}"
        return f"with exit code {self.returncode}; its output is above"


def _start(number: int, folder: Path, slots: int, devices: Sequence[str]) -> WorkerProcess:
    gpu = {"CUDA_VISIBLE_DEVICES": devices[(number - 1) % len(devices)]} if devices else {}
    threads = max(1, available_cores() // slots)
    return _worker(
        sys.argv[1:], number, folder, threads=threads, plugins=plugin_words(), environment={**gpu, CHECKED: "1"}
    )


def _worker(
    words: Sequence[str],
    number: int,
    folder: Path,
    *,
    threads: int,
    plugins: Sequence[str],
    place: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> WorkerProcess:
    own = [*(word for word in words if not LEADERS.match(word)), *same_study(folder), "hydra.sweeper.n_jobs=1"]
    if not any(word.lstrip("+").startswith("trainer.threads=") for word in own):
        own.append(f"trainer.threads={threads}")
    own += plugins
    variables = {**os.environ, SLOT: str(number), **(environment or {})}
    return WorkerProcess([sys.executable, "-m", "da6401", "train", *own], environment=variables, place=place)


def _own_cores() -> int:
    """The cores that a launcher's scheduler gave this process, at most those that it may use."""
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):  # Ray sets the second one
        if os.environ.get(name, "").isdigit():
            return max(1, min(int(os.environ[name]), available_cores()))
    return available_cores()


def _gpus(setting: str | int | list[int]) -> list[str]:
    """The GPUs for the slots, as CUDA_VISIBLE_DEVICES names them; none on a machine without GPUs."""
    if setting != "auto":
        return [str(each) for each in setting] if isinstance(setting, list) else str(setting).split(",")
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
