"""Several slots: each is a process of the same command that works on the study, refilled by claiming the next trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from da6401.errors import InterruptedRun, UserError

SLOT = "DA6401_SLOT"  # in a worker's environment: its number, from 1
POLL_SECONDS = 0.2


def is_worker() -> bool:
    """Whether this process works for a sweep that another process leads."""
    return SLOT in os.environ


def slot() -> int:
    """This worker's number, from 1; 0 for a process that leads or works alone."""
    return int(os.environ.get(SLOT, 0))


def same_study(folder: Path) -> list[str]:
    """Overrides that bring the same command to the same study, whose name may hold the time."""
    return [f"study={folder.name}", f"hydra.sweep.dir='{folder}'"]


def run_workers(folder: Path, *, slots: int, gpus: str, retries: int) -> None:
    """Run the present command in ``slots`` worker processes until the study is at its total.

    A worker that is killed is started again, at most ``retries`` times each; its trial is taken up by whoever asks
    next. Slots get the GPUs in turn, so more slots than GPUs pack several trials on one.

    Raises:
        InterruptedRun: SIGINT or SIGTERM; the workers have put their trials back.
        UserError: a worker ended with an error of its own, which it has printed.
    """
    devices = _gpus(gpus)
    stopped: list[int] = []

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stopped.append(signum)

    previous = {signum: signal.signal(signum, on_signal) for signum in (signal.SIGINT, signal.SIGTERM)}
    workers = {number: _start(number, folder, slots, devices) for number in range(1, slots + 1)}
    starts = dict.fromkeys(workers, 1)
    failure = 0
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
                if code < 0 and starts[number] <= retries:  # killed: the machine's doing, not the command's
                    starts[number] += 1
                    workers[number] = _start(number, folder, slots, devices)
                elif code:
                    failure = code
    finally:
        for process in workers.values():
            process.kill()
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if failure:
        raise UserError(f"a worker ended with exit code {failure}; what it said stands above")


def _start(number: int, folder: Path, slots: int, devices: Sequence[str]) -> subprocess.Popen[bytes]:
    words = [*sys.argv[1:], *same_study(folder), "hydra.sweeper.n_jobs=1"]
    if not any(word.lstrip("+").startswith("trainer.threads=") for word in words):
        words.append(f"trainer.threads={max(1, (os.cpu_count() or 1) // slots)}")
    environment = {**os.environ, SLOT: str(number)}
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[(number - 1) % len(devices)]
    # A session of its own: Ctrl-C reaches the leader alone, which passes it on once.
    return subprocess.Popen([sys.executable, "-m", "da6401", "train", *words], env=environment, start_new_session=True)


def _gpus(setting: str) -> list[str]:
    """The devices to hand out, as CUDA_VISIBLE_DEVICES names them; none on a machine without."""
    if setting != "auto":
        return setting.split(",")
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
