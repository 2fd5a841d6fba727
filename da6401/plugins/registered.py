"""What plugins have registered, what each kind must do, and the message about one that does not."""

from __future__ import annotations

import functools
import hashlib
import inspect
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from da6401.errors import DivergedError, InterruptedRun, PluginError, PrunedError, UserError

F = TypeVar("F", bound=Callable[..., Any])

# Of each kind: what it must do, as a user reads it.
RULES = {
    "model": "(cfg, num_classes, image_size) -> a torch module that maps float images (B, 3, S, S) in 0..1 to finite "
    "logits (B, num_classes)",
    "block": "(cfg, in_channels, filters, kernel_size) -> a torch module that maps finite maps (B, in_channels, H, W) "
    "to finite ones (B, filters, H // 2, W // 2)",
    "backbone": "(cfg) -> a registry.BackboneEntry whose stages, run one after the other on images (B, 3, S, S), give "
    "(B, features)",
    "data_source": "(cfg, split) -> (images, labels, class names) for split in train, test; images are uint8 "
    "(N, 3, H, W) or RGB pictures, labels are whole numbers from 0, one for each image",
    "augmentation": "(images, generator, cfg) -> the changed images: finite float32, of the same shape and device",
    "optimizer": "(groups, cfg) -> a torch.optim.Optimizer over exactly these groups of parameters",
    "schedule": "(cfg, progress) -> the learning rate as a share of the highest: a finite number, 0 or more",
    "metric": "(labels, probabilities, cfg) -> one finite number; UndefinedMetricError where it has none",
    "callback": "a class made with (cfg, out): methods run_begins(), epoch_done(epoch, values), run_done(result), of "
    "which one or more are there",
    "": "a plugin is imported, and what it registers is called, without an exception",
}


@dataclass(frozen=True)
class Registered:
    """One name of a plugin."""

    kind: str
    name: str
    what: Callable[..., Any]  # the function or class that was decorated
    file: str
    line: int

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.file}, line {self.line}"


@dataclass(frozen=True)
class LocalModule:
    """A module of a plugin's own folder that its file imports."""

    module: str  # its name in Python
    file: str  # relative to the plugin's folder, with /
    sha256: str
    text: bytes


@dataclass
class Plugin:
    """A loaded file, or an installed package's module."""

    file: Path
    sha256: str = ""
    text: bytes = b""
    distribution: str = ""  # of an installed package, with its version
    version: str = ""
    python: str = ""  # of objects that train(...) was given: an id of them, which lasts as long as the process
    objects: str = ""  # what they are, in words
    module: ModuleType | None = None
    modules: tuple[LocalModule, ...] = ()
    searched: bool = False  # whether its folder is on Python's search path for it
    undo: list[Callable[[], object]] = field(default_factory=list)  # of each registration
    names: list[Registered] = field(default_factory=list)

    @property
    def is_file(self) -> bool:
        """Whether it is a file that --plugin names."""
        return bool(self.sha256)

    @property
    def digest(self) -> str:
        """Of the file and its modules together; the file's sha256 where it has none."""
        if not self.modules:
            return self.sha256
        return hashlib.sha256(" ".join([self.sha256, *(each.sha256 for each in self.modules)]).encode()).hexdigest()


LOADED: list[Plugin] = []  # in this process now, in order
REGISTERED: dict[tuple[str, str], Registered] = {}
SPENT: defaultdict[tuple[str, str], float] = defaultdict(float)  # seconds in this process, in what was registered so


def timed(kind: str, name: str, function: F) -> F:
    """The function, whose time is counted in SPENT; on a GPU the time to launch its work is, not that work's."""

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            SPENT[kind, name] += time.perf_counter() - started

    return cast(F, call)


def place_of(what: Callable[..., Any]) -> tuple[str, int]:
    """The file and the line where a function or class begins."""
    what = inspect.unwrap(what)
    if hasattr(what, "place"):  # of an object that has no source
        return str(what.place), 0
    try:
        return inspect.getsourcefile(what) or "?", inspect.getsourcelines(what)[1]
    except (OSError, TypeError):
        code = getattr(what, "__code__", None)
        return (code.co_filename, code.co_firstlineno) if code else ("?", 0)


def plugin_error(file: str, line: int, problem: str, *, rule: str, remedy: str) -> PluginError:
    """The one screen about a plugin."""
    where = f"plugin {file}, line {line}" if line else file
    return PluginError(f"{where}: {problem}\n  rule: {rule}\n  remedy: {remedy}")


def broken(kind: str, name: str, problem: str, *, remedy: str = "") -> PluginError:
    """What a registered name gave that its kind must not."""
    found = REGISTERED[kind, name]
    remedy = remedy or f"mend {found.what.__name__}() in {found.file}"
    return plugin_error(found.file, found.line, f"{kind} {name} {problem}", rule=RULES[kind], remedy=remedy)


def as_plugin_error(error: BaseException) -> PluginError | None:
    """The message about an exception that left a plugin's code; None where none of its lines was running.

    A plugin's sys.exit() is one, too: it would end the command as if all were done. Memory that is used up is the
    machine's or the network's matter, and stays what it is.
    """
    if isinstance(error, (UserError, DivergedError, PrunedError, InterruptedRun, MemoryError, ModuleNotFoundError)):
        return None
    if not isinstance(error, (Exception, SystemExit)) or type(error).__name__ == "OutOfMemoryError":
        return None
    files = {str(plugin.file) for plugin in LOADED}
    files |= {str(plugin.file.parent / each.file) for plugin in LOADED for each in plugin.modules}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    if not frames:
        return None
    return raised(error, frames[-1].filename, frames[-1].lineno or 0)


def raised(error: BaseException, file: str, line: int) -> PluginError:
    """The message about an exception of a plugin's line."""
    inside = [each for each in REGISTERED.values() if each.file == file and each.line <= line <= _last_line(each)]
    text = " ".join(str(error).split())
    return plugin_error(
        file, line, f"raised {type(error).__name__}{f': {text}' if text else ''}",
        rule=RULES[inside[-1].kind if inside else ""],
        remedy="mend that line; `python -m pdb -m da6401 ...` stops there",
    )  # fmt: skip


def _last_line(found: Registered) -> int:
    try:
        return found.line + len(inspect.getsourcelines(inspect.unwrap(found.what))[0]) - 1
    except (OSError, TypeError):
        return found.line
