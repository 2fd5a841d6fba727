"""The modules of a plugin's own folder that its file imports: they are hashed and kept as the file itself is."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from da6401.plugins.registered import LOADED, LocalModule, Plugin

PACKAGE = Path(__file__).resolve().parents[1]


@contextmanager
def recorded_imports(plugin: Plugin) -> Iterator[None]:
    """Note in the plugin what the block imports from its folder, which is searched last for modules.

    What is imported later, within a function, is not among them.
    """
    folder, before = str(plugin.file.parent), set(sys.modules)
    plugin.searched = folder not in sys.path
    if plugin.searched:
        sys.path.append(folder)
    try:
        yield
    finally:
        plugin.modules = _imported(plugin.file.parent, before)


def forget_modules(plugin: Plugin) -> None:
    """Let the next load of the plugin read its modules again."""
    for each in plugin.modules:
        sys.modules.pop(each.module, None)
    folder = str(plugin.file.parent)
    others = [other for other in LOADED if other.searched and other.file.parent == plugin.file.parent]
    if plugin.searched and folder in sys.path and not others:
        sys.path.remove(folder)


def are_unchanged(plugin: Plugin) -> bool:
    """Whether the modules' files have the texts that were loaded."""
    try:
        return all((plugin.file.parent / each.file).read_bytes() == each.text for each in plugin.modules)
    except OSError:
        return False


def _imported(folder: Path, before: Collection[str]) -> tuple[LocalModule, ...]:
    found = []
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        # torch names some modules by a file that is nowhere.
        if name in before or not isinstance(file, str) or not file.endswith(".py") or not Path(file).is_absolute():
            continue
        path = Path(file).resolve()
        if path.is_relative_to(folder) and not _is_installed(path) and all(path != each.file for each in LOADED):
            text = path.read_bytes()
            sha256 = hashlib.sha256(text).hexdigest()
            found.append(LocalModule(name, path.relative_to(folder).as_posix(), sha256, text))
    return tuple(found)


def _is_installed(path: Path) -> bool:
    """Whether it is this package's, or that of an environment, which may lie below the plugin's folder."""
    roots = {PACKAGE, *(Path(root).resolve() for root in (sys.prefix, sys.base_prefix))}
    return "site-packages" in path.parts or any(path.is_relative_to(root) for root in roots)
