"""The command line: its verbs, and a message with an exit code for every expected failure."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from da6401.commands import completion
from da6401.commands.verbs import parser, tune_parser
from da6401.config.arguments import take_plugins
from da6401.errors import ConfigError, DivergedError, InterruptedRun, UserError
from da6401.machine.process_start import process_start
from da6401.machine.torchrun import rank_of_torchrun
from da6401.redact import redacted, remember_secrets, safe, safe_logs
from da6401.runs.atomic_files import OTHER_RUN, OTHER_SWEEP, REMEDIES, WriteError, write_problem
from da6401.runs.run_folder import holds_run
from da6401.runs.run_lock import new_beside
from da6401.study.clock import BEGAN

if TYPE_CHECKING:
    from omegaconf import DictConfig


TO_TRY = """da6401: three lines to try, and --help for all verbs

    da6401 train                                  # a small CNN on handwritten digits, two minutes on two cores
    da6401 tune path/to/images --minutes 30       # the best model for your images in half an hour
    da6401 predict latest path/to/photos          # what the newest model says of photographs"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0 done, 1 no trial of a sweep completed, 2 the user's mistake, 3 diverged.

    4 not reproduced, 130/143 a signal.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        os.environ.setdefault(BEGAN, repr(process_start()))  # for sweep.minutes, which counts the imports, too
    remember_secrets(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what the terminal's encoding has not
    logging.raiseExceptions = False  # a full disk or a closed pipe costs a line of the log, not a screen of traceback
    try:
        _check_working_folder()
        return _verb_of(words)
    except (UserError, DivergedError, InterruptedRun) as error:
        kind = "training diverged: " if isinstance(error, DivergedError) else ""
        print(f"da6401: {kind}{safe(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("da6401: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `da6401 ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        path = error.filename or "a file"
        if isinstance(error, PermissionError):  # what raises it may have read: writes say so themselves
            remedy = "change its permissions, or name another path (of a run: hydra.run.dir=...)"
            problem = f"{path}: cannot be read or written ({error.strerror}); {remedy}"
        elif error.errno == errno.ENAMETOOLONG:  # likewise
            problem = f"{path}: cannot be read or written ({error.strerror}); name a shorter path"
        else:
            problem = write_problem(error, path)
        print(f"da6401: {safe(problem)}", file=sys.stderr)
        return UserError.exit_code


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the folder that you are in was removed: cd to another") from error


def _verb_of(words: list[str]) -> int:
    if not words:
        print(TO_TRY)
        return 0
    if words[:1] == ["train"]:
        return train(words[1:])
    if words[:1] == ["tune"]:
        return tune(words[1:])
    given: argparse.Namespace = parser().parse_args(words)
    if not hasattr(given, "plugin"):
        return int(given.handler(given))
    from da6401.plugins.loading import active

    with active(given.plugin, changed=given.plugin_changed):
        return int(given.handler(given))


def train(words: list[str]) -> int:
    """The Hydra app, with the plugins that `--plugin FILE` names; of torchrun's processes the first one is the run."""
    from da6401.plugins.loading import active

    if rank_of_torchrun():
        from da6401.training.follower import follow

        return follow(words)
    rest, plugins, changed = take_plugins(words)
    with active(plugins, changed=changed):
        return _train(rest, typed=[redacted(word) for word in words])


def _train(words: list[str], *, typed: list[str]) -> int:
    """Check the whole command line first, then let Hydra run one job or a sweep."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from da6401.config.command_line import check_command_line, hydra_arguments, hydra_problem
    from da6401.config.quoting import from_shell
    from da6401.config.search_path import CONFIG_NAME, SearchPath, register_schema
    from da6401.plugins.loading import changed_is_allowed, hashes

    words = from_shell(words)
    given = hydra_arguments(words)
    files = SearchPath(given.config_dir, given.config_path, given.config_name)
    if given.shell_completion:
        if (text := completion.script(given.overrides, parser().verbs)) is not None:
            print(text, end="")
            return 0
        words = [*completion.ask_hydra(), *words]
        given = hydra_arguments(words)
    shows = given.help or given.hydra_help or given.info or given.shell_completion
    elsewhere = OTHER_RUN
    if not shows:
        multirun = files.is_multirun(given.overrides, flag=given.multirun)
        if multirun and rank_of_torchrun() is not None:
            raise ConfigError(
                ["--multirun: start a sweep without torchrun; its trials start trainer.devices processes"]
            )
        elsewhere = OTHER_SWEEP if multirun else OTHER_RUN
        checked = check_command_line(given.overrides, files=files, multirun=multirun, runs=given.cfg is None)
        words = [*(word for word in words if word not in given.overrides), *checked.words]
        cfg = checked.config
        if cfg is not None and cfg.trainer.resume == "never" and not multirun and given.cfg is None:
            words = in_new_folder(words)
        # The run writes .hydra/ by itself: without passwords, and never into a folder that is not its own.
        words = [*words, "hydra.output_subdir=null"]
    if given.config_path:  # Hydra would look for it beside the package
        words = [
            word.replace(given.config_path, str(files.folders[0])) if word.endswith(given.config_path) else word
            for word in words
        ]
    register_schema()
    # Hydra prints a failing job's traceback and exits with 1 unless told to raise; main() has exit codes of its own.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["da6401 train", *words]
    task = Task(tuple(typed), hashes(), changed_is_allowed())
    app = hydra.main(config_path=str(files.folders[0]), config_name=CONFIG_NAME)(task)
    try:
        app()
    except HydraException as error:
        raise ConfigError([str(error).strip()]) from error
    except OmegaConfBaseException as error:
        raise ConfigError([hydra_problem(error)]) from error
    except OSError as error:  # Hydra makes the folder of the run or the sweep
        refused = error.errno in REMEDIES and not os.path.exists(error.filename or ".")
        if not refused and not isinstance(error, FileExistsError):
            raise
        raise WriteError(write_problem(error, error.filename, elsewhere, resumes=True)) from error
    except SystemExit as exit_of_hydra:  # --help and --info leave this way
        if not shows:  # it is none of Hydra's: a plugin's, say, which `active` explains
            raise
        return exit_of_hydra.code if isinstance(exit_of_hydra.code, int) else 0
    if task.failures:
        raise task.failures[0]
    return 0


def tune(words: list[str]) -> int:
    """`da6401 train --multirun sweep=tune_a` on a folder of images, for so many minutes."""
    from da6401.config.quoting import quote

    rest, plugins, changed = take_plugins(words)
    given = tune_parser().parse_args(rest)
    images = ["data=folder", f"data.root={quote(given.root)}"]
    return train(
        ["--multirun", f"sweep=tune_{given.part}", *images, f"sweep.minutes={given.minutes!r}", *given.overrides]
        + [word for file in plugins for word in ("--plugin", file)]
        + ["--plugin-changed"] * changed
    )


@dataclass(frozen=True)
class Task:
    """One training run as Hydra's task, here or in a launcher's process; it returns the sweep's objective."""

    typed: tuple[str, ...]  # the words after `da6401 train`, passwords left out
    plugins: tuple[tuple[str, str], ...] = ()  # their files and sha256
    plugin_changed: bool = False
    failures: list[Exception] = field(default_factory=list)

    def __call__(self, composed: DictConfig) -> float | tuple[float, ...] | None:
        """Run it. In a sweep a failure is raised; of a single run it is kept, since Hydra would print its own line."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from da6401.plugins.loading import same_as

        try:
            with same_as(self.plugins, changed=self.plugin_changed):
                return self._run(composed)
        except Exception as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise  # the sweeper tells its study
            self.failures.append(error)
            return None

    def _run(self, composed: DictConfig) -> float | tuple[float, ...] | None:
        from da6401.config.search_path import register_schema

        register_schema()  # in a launcher's process it is not registered yet
        with safe_logs(), _arguments(["da6401 train", *self.typed]):
            return _job(composed)


def _job(composed: DictConfig) -> float | tuple[float, ...] | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from da6401.config.compose import config_of
    from da6401.config.saved import hydra_files
    from da6401.sweep.cross_validation import cross_validate
    from da6401.sweep.trial import FoldWatcher, objective, trial_watcher
    from da6401.training.run import run

    cfg, files = config_of(composed), hydra_files(composed)
    out = Path(HydraConfig.get().runtime.output_dir)
    out = out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out
    watcher = trial_watcher(cfg)
    if not cfg.sweep.folds or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return objective(cfg, run(cfg, out, watcher, files=files), out)
    of_fold = None if watcher is None else FoldWatcher(watcher)
    values = cross_validate(cfg, out, watcher, train=lambda own, folder: run(own, folder, of_fold, files=files))
    return values[0] if values is not None and len(values) == 1 else values


@contextmanager
def _arguments(words: Sequence[str]) -> Iterator[None]:
    """Within the block sys.argv is the command as typed, without passwords: the receipt and the trackers read it."""
    before, sys.argv = sys.argv, list(words)
    try:
        yield
    finally:
        sys.argv = before


def in_new_folder(words: list[str]) -> list[str]:
    """The command with a new run folder beside the one that it names, where that one holds a run already."""
    from da6401.config.quoting import quote, value_of

    named = value_of(words, "hydra.run.dir")
    if named is None or not holds_run(Path(named)):
        return words  # without a name the folder is named by the time
    fresh = new_beside(Path(named))
    print(f"{safe(named)} holds a run already, and trainer.resume=never: this one goes to {safe(fresh)}")
    return [*words, f"hydra.run.dir={quote(str(fresh))}"]
