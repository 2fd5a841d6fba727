"""Processes that start in a moment: forked from one that has imported what preloaded.py names, and done nothing."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import benchmarks.simulated  # noqa: F401  names what is to be imported for its own processes: ours replaces that

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded", "tests.forked"])


def start(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    """A process that calls a module's function."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


@dataclass(frozen=True)
class Command:
    """A `da6401` that runs."""

    process: BaseProcess
    out: Path
    err: Path

    def send(self, signum: int) -> None:
        """A signal to it."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signum)

    def end(self, timeout: float = 60) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, once it has ended."""
        self.process.join(timeout)
        code = self.process.exitcode
        assert code is not None, f"it did not end in {timeout} s: {self.err.read_text()}"
        return code, self.out.read_text(), self.err.read_text()


@contextlib.contextmanager
def begun(
    words: Sequence[str], *, cwd: Path, before: Callable[[], object] | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Command]:
    """`da6401 WORDS` in such a process, killed if it is left running. ``before`` is called first, in it."""
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "out"), Path(place, "err")
        out.touch()
        err.touch()
        process = start(_command, list(words), cwd, out, err, before, dict(env or {}))
        try:
            yield Command(process, out, err)
        finally:
            process.kill()
            process.join()


def command(
    words: Sequence[str],
    *,
    cwd: Path,
    before: Callable[[], object] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> tuple[int, str, str]:
    """The same to its end: exit code, stdout, stderr."""
    with begun(words, cwd=cwd, before=before, env=env) as running:
        return running.end(timeout)


class Popen:
    """A module's function in such a process, for code that starts a program: what it uses of subprocess.Popen."""

    def __init__(self, target: Callable[..., object], *arguments: Any) -> None:
        self.process = start(target, *arguments)

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def wait(self) -> int | None:
        """The exit code, once it has ended."""
        self.process.join()
        return self.process.exitcode


def _command(
    words: Sequence[str], cwd: Path, out: Path, err: Path, before: Callable[[], object] | None, env: Mapping[str, str]
) -> None:
    from da6401.cli import main

    os.chdir(cwd)
    os.environ.update(env)
    sys.argv = ["da6401", *words]  # which the workers of a sweep are given
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with Ctrl-C ignored
    for stream, file in ((sys.stdout, out), (sys.stderr, err)):
        stream.flush()
        # In the place of the descriptor, for what writes past Python.
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), stream.fileno())
    code: int | None = 1
    try:
        if before is not None:
            before()
        code = main(words)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # as the interpreter would show it
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code or 0)
