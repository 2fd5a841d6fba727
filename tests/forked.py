"""Processes that start in a moment: forked from one that has imported torch and done nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
# torch._dynamo: two seconds that its first optimizer would otherwise cost each process.
CONTEXT.set_forkserver_preload(
    ["torch._dynamo", "da6401.training.run", "da6401.commands.evaluate", "da6401.commands.reproduce", "tests.forked"]
)


def start(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    """A process that calls a module's function."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def command(
    words: Sequence[str], *, cwd: Path, limits: Callable[[], None] | None = None, timeout: float = 60
) -> tuple[int, str, str]:
    """`da6401 WORDS` in such a process: exit code, stdout, stderr. ``limits`` is called first, in it."""
    out, err = cwd / f".stdout-{os.getpid()}", cwd / f".stderr-{os.getpid()}"
    for file in (out, err):
        file.touch(mode=0o666)
    process = start(_command, list(words), cwd, out, err, limits)
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"da6401 {' '.join(words)} did not end in {timeout} s: {err.read_text()}")
    code = process.exitcode
    assert code is not None
    texts = out.read_text(), err.read_text()
    for file in (out, err):
        file.unlink()
    return code, *texts


def _command(words: Sequence[str], cwd: Path, out: Path, err: Path, limits: Callable[[], None] | None) -> None:
    from da6401.cli import main

    os.chdir(cwd)
    with open(out, "w") as stdout, open(err, "w") as stderr:
        sys.stdout, sys.stderr = stdout, stderr
        if limits is not None:
            limits()
        code: int | None = 1
        try:
            code = main(words)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:  # as the interpreter would show it
            import traceback

            traceback.print_exc()
        with contextlib.suppress(OSError):
            stdout.flush()
            stderr.flush()
    os._exit(code or 0)
