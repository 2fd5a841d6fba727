"""Runs that take a second: tiny pictures, a tiny network, few epochs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from da6401.cli import main
from da6401.config.command_line import check_command_line
from da6401.config.schema import RunConfig
from tests import computed_once as computed_once  # which speeds up what follows
from tests import forked
from tests.logs import logging_kept

SMALL = (
    "data=synthetic", "data.image_size=16", "data.classes=3", "data.images_per_class=12", "model.filters=4",
    "model.blocks=2", "model.dense_width=8", "trainer.epochs=2", "trainer.batch_size=8", "trainer.threads=1",
)  # fmt: skip
DIVERGING = (
    *SMALL, "optimizer=sgd", "optimizer.lr=100", "optimizer.momentum=0.99", "schedule=constant",
    "model.batch_norm=false", "trainer.epochs=50",
)  # fmt: skip
SMALL_BACKBONE = tuple(text for text in SMALL if not text.startswith("model."))


@functools.cache
def compose(*overrides: str) -> RunConfig:
    """The configuration of a command line."""
    config = check_command_line(list(overrides), config_dir=None, multirun=False).config
    assert config is not None
    return config


def typed(*words: str, cwd: Path) -> tuple[int, str, str]:
    """`da6401 WORDS` in this process, as if typed in that folder: exit code, stdout, stderr."""
    out, err, arguments = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["da6401", *words]  # which the workers of a sweep are given
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), logging_kept():
        try:
            code = main(words)
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        finally:
            sys.argv = arguments
    return code, out.getvalue(), err.getvalue()


def da6401(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    code, out, err = forked.command(words, cwd=cwd, env=env, timeout=timeout)
    return subprocess.CompletedProcess(words, code, out, err)


def command(*words: str) -> Sequence[str]:
    """How to call the command line with this Python."""
    return [sys.executable, "-c", "import sys; from da6401.cli import main; sys.exit(main())", *words]


def fit_with(**hooks: Any) -> Callable[..., None]:
    """The training loop, with some of a run's hooks replaced."""
    from da6401.training import loop

    def fit(setup: Any, given: loop.RunHooks, *rest: Any, **named: Any) -> None:
        loop.fit(setup, dataclasses.replace(given, **hooks), *rest, **named)

    return fit
