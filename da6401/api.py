"""Runs and sweeps from Python, with the command line's config system and messages."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

from da6401.errors import ConfigError, UserError
from da6401.notebook.run_results import Run, load_run
from da6401.notebook.sweep_results import Sweep, load_sweep
from da6401.runs.run_folder import holds_run
from da6401.runs.run_lock import new_beside

__all__ = ["Run", "Sweep", "load_run", "load_sweep", "train"]


class Given(TypedDict, total=False):
    """What train(...) takes besides the words of a command."""

    plugins: Sequence[Path | str]  # --plugin FILE
    plugin_changed: bool  # --plugin-changed
    model: Any  # a torch module, of which a copy trains, or a function (num_classes, image_size) of one
    train_data: Any  # a data set of (image, label): uint8 (3, H, W), floats of that shape in 0..1, or pictures
    val_data: Any  # the same; without it data.val_fraction of train_data is held out
    metrics: Mapping[str, Any]  # names of functions (labels (N,), probabilities (N, K)), or (function, "minimize")


@overload
def train(
    *overrides: str,
    config_dir: Path | str | None = ...,
    out: Path | str | None = ...,
    multirun: Literal[False] = ...,
    **given: Unpack[Given],
) -> Run: ...
@overload
def train(
    *overrides: str,
    config_dir: Path | str | None = ...,
    out: Path | str | None = ...,
    multirun: Literal[True],
    **given: Unpack[Given],
) -> Sweep: ...
def train(
    *overrides: str,
    config_dir: Path | str | None = None,
    out: Path | str | None = None,
    multirun: bool = False,
    **given: Unpack[Given],
) -> Run | Sweep:
    """`da6401 train [--multirun] OVERRIDES` in this process, where the data stays in memory for the next run.

    A sweep with ``hydra.sweeper.n_jobs`` over 1 starts worker processes, as on the command line.

    Args:
        overrides: as typed there, such as "model.filters=16"; no quotes for the shell.
        config_dir: a folder of YAML files of your own (--config-dir).
        out: the run's or the sweep's folder; None names it as the command line does, under outputs/. In the folder of
            a stopped run the run resumes; with the name of a study its sweep does.
        given: plugins and objects of your own: see Given. What the folder alone cannot make again is said in its
            receipt.json and its log.

    Raises:
        UserError: a ConfigError that tells every problem, or its kin: the command line's own message.
        DivergedError: the loss was not finite. InterruptedRun: stopped by a signal, with a checkpoint.
    """
    from da6401.plugins.loading import active
    from da6401.plugins.objects import Objects
    from da6401.plugins.objects import given as registered

    if others := [word for word in overrides if not isinstance(word, str)]:
        raise ConfigError(
            [f"{others[0]!r}: is no text; write each override as a text of its own, or train(*OVERRIDES)"]
        )
    own: dict[str, Any] = {name: value for name, value in given.items() if name in Objects.__dataclass_fields__}
    if unknown := given.keys() - own.keys() - {"plugins", "plugin_changed"}:
        raise TypeError(f"train() has no argument {sorted(unknown)[0]}")
    objects = Objects(**own)
    plugins = given.get("plugins", ())
    if isinstance(plugins, (str, Path)):
        raise UserError(f"plugins={str(plugins)!r}: is one file; write plugins=[{str(plugins)!r}]")
    with active(plugins, changed=given.get("plugin_changed", False)), registered(objects):
        return _train((*overrides, *objects.overrides), config_dir, out, multirun=multirun)


def _train(
    overrides: tuple[str, ...], config_dir: Path | str | None, out: Path | str | None, *, multirun: bool
) -> Run | Sweep:
    from da6401.cli import train as run_command
    from da6401.config.command_line import check_command_line
    from da6401.config.quoting import from_shell, quote, value_of
    from da6401.config.search_path import SearchPath

    flags = [f"{word}: no key=value; write config_dir=, out= or multirun=" for word in overrides if word[:1] == "-"]
    if flags:
        raise ConfigError(flags)
    typed, files = from_shell(overrides), SearchPath(None if config_dir is None else str(config_dir))
    multirun = files.is_multirun(typed, flag=multirun)
    checked = check_command_line(typed, files=files, multirun=multirun, as_sweep="train(..., multirun=True)")
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    named = value_of(typed, key) if out is None else str(out)
    place, storage = checked.places
    place = place if out is None else str(out)
    words = [*overrides, *([] if config_dir is None else ["--config-dir", str(config_dir)])]
    if not multirun:
        folder = Path(place or f"outputs/runs/{datetime.now():%Y-%m-%d/%H-%M-%S-%f}")
        if checked.config is not None and checked.config.trainer.resume == "never" and holds_run(folder):
            folder = new_beside(folder)
    elif named:
        folder, words = Path(place or named), [*words, "--multirun"]
    else:
        folder = Path(place or f"outputs/sweeps/{checked.study}")
        words = [*words, "--multirun", f"study={checked.study}"]
    with _restore_process_state():
        run_command([*words, f"{key}={quote(str(folder))}"])
    if not multirun:
        return Run(folder)
    return Sweep(folder, storage=storage or None)


HYDRA_ERRORS = "HYDRA_FULL_ERROR"  # the command line sets it


@contextmanager
def _restore_process_state() -> Iterator[None]:
    """After the block the arguments and the root logger, which Hydra changes, are those from before."""
    root = logging.getLogger()
    arguments, handlers, level = sys.argv, list(root.handlers), root.level
    full_errors = os.environ.get(HYDRA_ERRORS)
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()  # of train.log
        sys.argv, root.handlers[:] = arguments, handlers
        root.setLevel(level)
        if full_errors is None:
            os.environ.pop(HYDRA_ERRORS, None)
