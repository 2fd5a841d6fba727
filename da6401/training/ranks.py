"""Processes that train one network together (trainer.devices), each on its own part of every batch.

Rank 0 is the run: it alone writes, validates limits and ends it. The others (follower.py) hold no state of their own
that lasts, so they can be ended at any moment.
"""

# B batch, P parts

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # torch does not list them

from da6401.config.schema import TrainerConfig
from da6401.data.batches import equal_parts
from da6401.errors import ConfigError, MachineError, NoDeviceError
from da6401.machine.cores import available_cores
from da6401.machine.parent_death import end_with_parent
from da6401.machine.torchrun import ADDRESS, COUNT, PORT, RANK, rank_of_torchrun
from da6401.plugins.loading import words

log = logging.getLogger(__name__)

RUN = "run"  # the store's key for what the followers train
WAIT = timedelta(minutes=30)  # for the others, which may be reading the data for the first time
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train a run together."""

    rank: int
    count: int

    def part(self, size: int) -> slice:
        """Its rows of a batch. A batch with fewer images than there are ranks leaves some without: they compute the
        first row, which counts nothing (``share``), since all must take part in each step."""
        parts = equal_parts(size, self.count)
        return parts[self.rank] if self.rank < len(parts) else slice(0, 1)

    def share(self, size: int) -> float:
        """What its part counts in the batch: 0..1; over all ranks the shares sum to 1."""
        part = self.part(size)
        return (part.stop - part.start) / size if self.rank < size else 0.0

    def wrapped(self, model: nn.Module, device: torch.device) -> nn.Module:
        """A forward pass whose backward pass takes the mean of all ranks' gradients."""
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def share_buffers(self, model: nn.Module) -> None:
        """Give all ranks the statistics of rank 0: on CPUs batch norm sees the rank's own part of each batch."""
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, in place."""
        dist.all_reduce(values)
        return values


def each_has_a_gpu(chosen: torch.device) -> bool:
    """Whether each rank takes the GPU of its number: `device=cuda:0` has all share one."""
    return str(chosen) == "cuda"


def own_device(chosen: torch.device, rank: int) -> torch.device:
    """The rank's device."""
    return torch.device("cuda", rank) if each_has_a_gpu(chosen) else chosen


def threads_of(trainer: TrainerConfig, device: torch.device) -> int:
    """torch's CPU threads of each process, unless the configuration says a number.

    Beside a GPU one: the CPU draws random numbers in small operations, where more threads wait for each other.
    """
    if trainer.threads:
        return trainer.threads
    return 1 if device.type == "cuda" else max(1, available_cores() // trainer.devices)


def check_ranks(trainer: TrainerConfig, chosen: torch.device) -> None:
    """Refuse what several processes cannot do, before anything is loaded.

    Raises:
        ConfigError, NoDeviceError: what, and what to do.
    """
    count, started = trainer.devices, int(os.environ[COUNT]) if rank_of_torchrun() is not None else None
    if started is not None and started != count:
        raise ConfigError([f"trainer.devices={count}: torchrun has started {started} processes; give the same number"])
    if count == 1:
        return
    if dist.is_initialized():
        raise ConfigError([f"trainer.devices={count}: this process is part of a process group of its own already"])
    if trainer.compile:
        raise ConfigError([f"trainer.devices={count}: trainer.compile is for one device; leave it off"])
    words()  # objects of Python cannot be given to other processes
    if each_has_a_gpu(chosen) and count > (found := torch.cuda.device_count()):
        raise NoDeviceError([f"trainer.devices={count}: this machine has {found} CUDA devices; give at most so many"])


@contextmanager
def together(trainer: TrainerConfig, chosen: torch.device, out: Path, *, resumes: bool) -> Iterator[Ranks | None]:
    """Within the block the other ranks follow the run in ``out``, whose config.yaml is written; None: it is alone.

    Args:
        chosen: the device as the configuration names it, with a number or without.

    Raises:
        MachineError: another rank ended too early.
    """
    if trainer.devices == 1:
        yield None
        return
    address = os.environ[ADDRESS] if rank_of_torchrun() is not None else "127.0.0.1"
    if rank_of_torchrun() is not None:
        store, started = TCPStore(address, int(os.environ[PORT]), is_master=False), []
    else:
        store = TCPStore(address, 0, trainer.devices, is_master=True, wait_for_workers=False)
        started = [_start(rank, trainer.devices, store.port) for rank in range(1, trainer.devices)]
    store.set(RUN, json.dumps({"out": str(out.resolve()), "resumes": resumes}))
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(started, done), name="ranks", daemon=True)
    watch.start()
    try:
        join(store, chosen, rank=0, count=trainer.devices)
        log.info("%d processes train together, each on its part of every batch", trainer.devices)
        yield Ranks(0, trainer.devices)
    except Exception as error:
        codes = [code for process in started if (code := process.poll())]
        if codes:
            raise MachineError(
                f"another process of the run ended with exit code {codes[0]}: what it printed is above; the same "
                "command resumes the run"
            ) from error
        raise
    finally:
        done.set()
        for process in started:
            process.kill()
            process.wait()
        watch.join()
        leave()


def join(store: Any, chosen: torch.device, *, rank: int, count: int) -> None:
    """Enter the process group. GPUs of their own exchange by NCCL; processes on CPUs, or on one GPU, by Gloo."""
    backend = "nccl" if each_has_a_gpu(chosen) else "gloo"
    store = PrefixStore("ranks", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=WAIT)


def leave() -> None:
    """Leave the process group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _start(rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
    """A follower, which ends when this process does; Ctrl-C does not reach it."""
    place: dict[str, Any] = {RANK: rank, COUNT: count, ADDRESS: "127.0.0.1", PORT: port}
    environment = {**os.environ, **{name: str(value) for name, value in place.items()}}
    command = [sys.executable, "-m", "da6401.training.follower", *words()]
    return subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=end_with_parent)


def _watch(started: list[subprocess.Popen[bytes]], done: threading.Event) -> None:
    """End this process where a follower fails: a GPU that waits for it would wait for ever."""
    while not done.wait(POLL_SECONDS):
        failed = [code for process in started if (code := process.poll())]
        if failed and not done.wait(10 * POLL_SECONDS):  # else the exchange has noticed it
            log.error(
                "another process of the run ended with exit code %d: this one ends, and can be resumed", failed[0]
            )
            logging.shutdown()
            os._exit(MachineError.exit_code)
