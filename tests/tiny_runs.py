"""Runs that take a second: tiny pictures, a tiny network, few epochs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from da6401.config.command_line import check_command_line
from da6401.config.schema import RunConfig

SMALL = (
    "data=synthetic", "data.image_size=16", "data.classes=3", "data.images_per_class=12", "model.filters=4",
    "model.blocks=2", "model.dense_width=8", "trainer.epochs=2", "trainer.batch_size=8", "trainer.threads=1",
)  # fmt: skip
SMALL_BACKBONE = tuple(text for text in SMALL if not text.startswith("model."))


def compose(*overrides: str) -> RunConfig:
    """The configuration of a command line."""
    config = check_command_line(list(overrides), config_dir=None, multirun=False).config
    assert config is not None
    return config


def da6401(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """The installed command in a process of its own."""
    return subprocess.run(
        command(*words), cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip


def command(*words: str) -> Sequence[str]:
    """How to call the command line with this Python."""
    return [sys.executable, "-c", "import sys; from da6401.cli import main; sys.exit(main())", *words]
