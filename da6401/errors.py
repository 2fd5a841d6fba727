"""The failures that the program expects, each with the exit code it ends in.

Three kinds: the user's (exit 2, one screen, no traceback; 1 where all trials of a sweep failed), training's (exit 3)
and a stop by a signal (130 or 143).
A programmer's mistake is an ``assert`` or any other exception, and keeps its traceback.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """What the user can correct: the message says what is wrong, where, and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """One or more problems of a configuration, reported together."""

    def __init__(self, problems: Sequence[str]) -> None:
        assert problems, "a ConfigError needs at least one problem"
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{count} in the configuration:\n" + "\n".join(f"  - {problem}" for problem in problems))


class DataError(UserError):
    """A data set that cannot be read, fetched or trusted."""


class ModelError(UserError):
    """A network that cannot be built: shapes that do not fit, weights that are missing or do not match."""


class UndefinedMetricError(UserError):
    """A metric that has no value on some images; the message says why."""


class RunError(UserError):
    """A run folder that is missing, unfinished, unreadable or already used."""


class ChangedDataError(RunError):
    """A run that cannot resume: the images are not those that it began on."""


class PluginError(UserError):
    """A plugin that cannot be loaded, does not do what its kind must, or is not the one that a run needs."""


class BusyError(RunError):
    """A run folder in which another process is running."""


class AllFailedError(UserError):
    """A sweep in which no trial completed."""

    exit_code = 1


class TrialTimeoutError(UserError):
    """A trial took longer than sweep.trial_minutes."""


class MachineError(UserError):
    """A failure of this machine, not of the configuration: another machine may run the same.

    See training/machine_failures.py, which tells such failures from those of a configuration.
    """


class NoDeviceError(ConfigError, MachineError):
    """A device that this machine does not have."""


class NoRoomError(DataError, MachineError):
    """A disk that has no room for what is to be kept on it."""


class UnreachableError(DataError, ModelError, MachineError):
    """A path of the configuration, to data or weights, that this machine does not have or cannot read."""

    def __init__(self, message: str, key: str = "") -> None:  # a default, for pickle
        super().__init__(message)
        self.key = key  # such as data.root


class DivergedError(Exception):
    """The loss is not finite; raised before the optimizer steps, so the last checkpoint is good."""

    exit_code = 3


class InterruptedRun(BaseException):
    """A signal (SIGINT, SIGTERM, SIGUSR1) asked the run to stop; its last checkpoint is written.

    A BaseException, like KeyboardInterrupt: a sweep that continues after failed trials must not continue after this.
    """

    def __init__(self, signum: int) -> None:
        self.exit_code = 128 + signum  # the shell's convention: 130 for SIGINT, 143 for SIGTERM
        super().__init__(f"stopped by {signal.Signals(signum).name}")


class TakenOverError(InterruptedRun):
    """The trial of this run now belongs to another worker, which resumes it."""

    def __init__(self, owner: str | None) -> None:
        super().__init__(signal.SIGTERM)
        self.args = (f"taken over by {owner or 'another worker'}",)


class OutOfTimeError(InterruptedRun):
    """The sweep's time is over (sweep.minutes); the run can resume when there is more."""

    def __init__(self, reason: str) -> None:
        super().__init__(signal.SIGTERM)
        self.args = (reason,)


class PrunedError(Exception):
    """A sweep's pruner ended this trial; its epochs so far are kept."""


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """The most similar of the names, None where nothing is similar. A dotted name is also compared by its last part."""
    known = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return close[0]
    by_leaf = {known_name.rpartition(".")[2]: known_name for known_name in reversed(known)}
    leaf = difflib.get_close_matches(name.rpartition(".")[2], by_leaf, n=1, cutoff=0.75)
    return by_leaf[leaf[0]] if leaf else None


def did_you_mean(given: object, names: Iterable[str]) -> str:
    """The end of a message about a name that does not exist: the most similar one, "" where nothing is similar."""
    nearest = nearest_name(str(given), names)
    return f"; did you mean {nearest}?" if nearest else ""
