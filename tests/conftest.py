"""Fixtures that all tests share."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

from tests.logs import logging_kept

# Read when torch is first imported: tests measure outcomes, not speed, and two may run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
# Where there is a file system in memory, nobody waits for a disk: studies and checkpoints are written with fsync.
MEMORY = "/dev/shm"
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 8 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
# A cache of the tests' own; the programs that they start inherit it.
os.environ["DA6401_CACHE_DIR"] = tempfile.mkdtemp(prefix="da6401-tests-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
atexit.register(shutil.rmtree, os.environ["DA6401_CACHE_DIR"], ignore_errors=True)

UNTIL = float(os.environ.get("DA6401_TESTS_UNTIL", "inf"))  # set by quick.py


@pytest.hookimpl(optionalhook=True)  # pytest may run without xdist
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto`: tests of other programs often wait for them, so that three for two cores are quicker."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (3 * cores + 1) // 2 if config.getoption("markexpr") == "integration" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first: at the end no core waits for one of them."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Look for garbage less often: with all that is imported that was a tenth of the time."""
    gc.set_threshold(20_000, 20, 20)


def pytest_runtest_setup() -> None:
    """`make quick` begins no test after its time."""
    if time.time() > UNTIL:
        pytest.skip("its time is over: `make test` and `make integration` run all")


# As this process began: a library that a test runs here (a launcher's) may leave a handler of its own behind.
HANDLERS = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1)}
HANDLERS[signal.SIGINT] = signal.default_int_handler  # a shell's background job begins with Ctrl-C ignored


@pytest.fixture(autouse=True)
def own_signal_handlers() -> None:
    """Give each test the handlers that the process began with."""
    for each, handler in HANDLERS.items():
        if handler is not None and signal.getsignal(each) is not handler:
            signal.signal(each, handler)


@pytest.fixture(autouse=True)
def _leave_nothing_open() -> Iterator[None]:
    """A connection or a train.log left open would be reported as another test's."""
    with logging_kept():
        yield
    if "da6401.study.storage" in sys.modules:
        sys.modules["da6401.study.storage"].close_storages()


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of large networks are drawn in part, and repeated."""
    from tests.few_draws import draw_few

    draw_few(monkeypatch)
