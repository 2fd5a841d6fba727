"""A process that trains a run together with rank 0, and writes nothing: `python -m da6401.training.follower`."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from pathlib import Path

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch does not list it

from da6401.config.arguments import take_plugins
from da6401.config.compose import saved_config
from da6401.machine.torchrun import ADDRESS, COUNT, PORT, RANK
from da6401.plugins.loading import active
from da6401.runs.run_folder import CONFIG
from da6401.training.checkpoint import load_last
from da6401.training.device import choose_device, prepare
from da6401.training.loop import RunHooks, fit
from da6401.training.ranks import RUN, Ranks, join, leave, own_device, threads_of
from da6401.training.setup import load_images, set_up
from da6401.training.signals import StopFlag
from da6401.training.state import History
from da6401.training.tracking import LocalTracker


def follow(words: list[str]) -> int:
    """Train what rank 0 trains, until it ends.

    Args:
        words: of the command; its plugins count, all else comes from the run's folder.
    """
    logging.basicConfig(level=logging.ERROR)  # rank 0 says the rest
    rank, count = int(os.environ[RANK]), int(os.environ[COUNT])
    store = TCPStore(os.environ[ADDRESS], int(os.environ[PORT]), is_master=False)
    given = json.loads(store.get(RUN))
    out = Path(given["out"])
    _, plugins, changed = take_plugins(words)
    with active(plugins, changed=changed):
        cfg = saved_config(out / CONFIG)
        chosen = choose_device(cfg.device)
        device = own_device(chosen, rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        prepare(seed=cfg.seed, threads=threads_of(cfg.trainer, device), deterministic=cfg.trainer.deterministic)
        history = History()
        resumed = load_last(out) if given["resumes"] else None
        if resumed is not None:
            history.restore(resumed)
        setup = dataclasses.replace(set_up(cfg, device, load_images(cfg)), ranks=Ranks(rank, count))
        join(store, chosen, rank=rank, count=count)
        try:
            fit(setup, RunHooks(LocalTracker(), None, StopFlag()), history, out=out, resumed=resumed)
        finally:
            leave()
    return 0


if __name__ == "__main__":
    sys.exit(follow(sys.argv[1:]))
