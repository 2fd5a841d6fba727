"""Loads plugins: a file that the command line or Python names, and the modules of installed packages.

The text that is hashed is the text that runs. A file in a run folder is never run: its copy there is for reading.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import linecache
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from da6401.errors import PluginError, UserError
from da6401.plugins.local_modules import are_unchanged, forget_modules, recorded_imports
from da6401.plugins.registered import LOADED, RULES, Plugin, as_plugin_error, plugin_error, raised
from da6401.runs.run_folder import PLUGINS, RECEIPT

GROUP = "da6401.plugins"  # of entry points
LARGEST = 4 * 2**20  # bytes of a plugin
_changed_allowed: list[bool] = []  # --plugin-changed of the commands that this process is in


@contextmanager
def active(files: Sequence[str | Path], *, changed: bool = False) -> Iterator[None]:
    """Within the block these plugins are loaded; those that are loaded already are left alone.

    What leaves a plugin's code in the block is raised as a PluginError.

    Args:
        changed: a run may be continued or evaluated with another text of its plugin.

    Raises:
        PluginError: one cannot be loaded, is given twice, or registers what it must not.
    """
    before = len(LOADED)
    _changed_allowed.append(changed)
    paths = [Path(each).expanduser().resolve() for each in files]
    try:
        for place, path in enumerate(paths):
            if path in paths[:place]:
                raise plugin_error(
                    str(path), 1, "is given twice", rule="a plugin is loaded once", remedy="give --plugin FILE once"
                )
            if not any(
                plugin.file == path and plugin.text == _read(path) and are_unchanged(plugin) for plugin in LOADED
            ):
                load(path)
        if len(_changed_allowed) == 1:  # the outermost command
            _load_packages()
        yield
    except (Exception, SystemExit) as error:
        explained = as_plugin_error(error)
        if explained is None:
            raise
        raise explained from error
    finally:
        _changed_allowed.pop()
        for plugin in reversed(LOADED[before:]):
            unload(plugin)


def changed_is_allowed() -> bool:
    """Whether the command said --plugin-changed."""
    return any(_changed_allowed)


def load(file: str | Path) -> Plugin:
    """Run a plugin's file and keep what it registers, until this process ends or the file is loaded again.

    Raises:
        PluginError: it cannot be read, it raises, or it registers what it must not.
    """
    path = Path(file).expanduser().resolve()
    if path.parent.name == PLUGINS and (path.parent.parent / RECEIPT).exists():
        raise PluginError(
            f"plugin {path}: lies in a run folder, whose files are never run\n  rule: a run folder holds values and "
            "texts, whoever made it\n  remedy: read it, copy it to a place of your own, and give that with --plugin"
        )
    text = _read(path)
    for same in [plugin for plugin in LOADED if plugin.file == path]:
        unload(same)
    plugin = Plugin(path, hashlib.sha256(text).hexdigest(), text)
    name = f"da6401_plugin_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    linecache.checkcache(str(path))
    LOADED.append(plugin)
    plugin.module, sys.modules[name] = module, module  # a dataclass looks its module up
    try:
        with recorded_imports(plugin):
            _execute(text, path, module)
    except BaseException:
        unload(plugin)
        raise
    if not plugin.names:
        unload(plugin)
        raise plugin_error(
            str(path), 1, "registers nothing", rule="a plugin uses the decorators of da6401.plugins",
            remedy="decorate what it brings, such as @model(\"name\"); see docs/plugins.md",
        )  # fmt: skip
    return plugin


def unload(plugin: Plugin) -> None:
    """Take back what a plugin has registered."""
    for undo in reversed(plugin.undo):
        undo()
    LOADED.remove(plugin)
    forget_modules(plugin)
    if plugin.module is not None and sys.modules.get(plugin.module.__name__) is plugin.module:
        del sys.modules[plugin.module.__name__]


def words() -> list[str]:
    """The loaded files as words of a command: what the workers of a sweep are given.

    Raises:
        UserError: there are objects of Python, which another process cannot have.
    """
    if any(plugin.python for plugin in LOADED):
        raise UserError(
            "the objects that train(...) was given stay in this process: leave hydra.sweeper.n_jobs at 1 and "
            "hydra/launcher at basic, or write them into a plugin's file"
        )
    words = [word for plugin in LOADED if plugin.is_file for word in ("--plugin", str(plugin.file))]
    return [*words, *(["--plugin-changed"] if changed_is_allowed() else [])]


def hashes() -> tuple[tuple[str, str], ...]:
    """The loaded files with a hash of them and their modules: what a trial in another process must load."""
    return tuple((str(plugin.file), plugin.digest) for plugin in LOADED if plugin.is_file)


@contextmanager
def same_as(given: Sequence[tuple[str, str]], *, changed: bool) -> Iterator[None]:
    """As ``active``, for a trial: the files must be those that its sweep began with, whose text may be loaded already.

    Raises:
        PluginError: a file has changed since.
    """
    loaded = hashes()
    with active([file for file, sha256 in given if (file, sha256) not in loaded], changed=changed):
        now = dict(hashes())
        for file, sha256 in given:
            if now[file] != sha256:
                raise plugin_error(
                    file, 1, "has changed since the sweep began", rule="all trials of a sweep run the same plugin",
                    remedy="give the sweep's command again",
                )  # fmt: skip
        yield


def _execute(text: bytes, path: Path, module: ModuleType) -> None:
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except UserError:
        raise
    except SyntaxError as error:
        raise plugin_error(
            error.filename or str(path), error.lineno or 1, f"is no Python: {error.msg}", rule=RULES[""],
            remedy="mend that line",
        ) from error  # fmt: skip
    except (Exception, SystemExit) as error:
        lines = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path)]
        raise raised(error, str(path), (lines[-1].lineno or 1) if lines else 1) from error


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError("it is larger than 4 MiB")
        text.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PluginError(
            f"plugin {path}: cannot be read ({reason})\n  rule: --plugin takes a file of Python in UTF-8\n  remedy: "
            "give its path, from the folder that you are in"
        ) from error
    return text


def _load_packages() -> None:
    """The entry points of packages that are installed: not of a folder that is merely on the search path."""
    places = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    loaded = {plugin.distribution for plugin in LOADED}
    for place in sorted(places):
        for package in importlib.metadata.distributions(path=[str(place)]):
            points = [point for point in package.entry_points if point.group == GROUP]
            if points and package.name not in loaded:
                _load_package(package, points)


def _load_package(package: importlib.metadata.Distribution, points: Sequence[importlib.metadata.EntryPoint]) -> None:
    plugin = Plugin(Path(), distribution=package.name, version=package.version)
    LOADED.append(plugin)
    try:
        for point in points:
            module = importlib.import_module(point.module)
            plugin.file = Path(module.__file__ or "")
            if not plugin.names:  # imported before, in this process
                importlib.reload(module)
    except UserError:
        unload(plugin)
        raise
    except Exception as error:
        unload(plugin)
        file = str(plugin.file if plugin.file.name else points[0].module)
        lines = traceback.extract_tb(error.__traceback__)
        raise raised(error, f"{file} of {package.name} {package.version}", lines[-1].lineno or 1) from error
