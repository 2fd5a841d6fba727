"""The plugins of a run: what its receipt records of them, the copies in its folder, and whether they are loaded."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from da6401.errors import PluginError
from da6401.plugins.loading import changed_is_allowed
from da6401.plugins.objects import again, parts_of
from da6401.plugins.registered import LOADED, Plugin
from da6401.redact import safe
from da6401.runs.members import read_members
from da6401.runs.reproduce_command import plugin_words
from da6401.runs.run_folder import PLUGINS, RECEIPT, read_json

log = logging.getLogger(__name__)


NOT_ALONE = "given from Python, not held by this folder: the run cannot be made again from the folder alone"


def recorded() -> list[dict[str, Any]]:
    """What a receipt says of the loaded plugins: name and hash of a file, name and version of a package, objects."""
    return [_about(plugin) for plugin in LOADED]


def plugin_files() -> list[str]:
    """The absolute paths of the loaded files."""
    return [str(plugin.file) for plugin in LOADED if plugin.is_file]


def _about(plugin: Plugin) -> dict[str, Any]:
    if plugin.python:
        return {"python": plugin.python, "objects": plugin.objects, "note": NOT_ALONE}
    if plugin.distribution:
        return {"package": plugin.distribution, "version": plugin.version}
    name = plugin.file.name
    about: dict[str, Any] = {"file": name, "sha256": plugin.sha256, "copy": copy_name(name, plugin.sha256)}
    modules = [
        {"file": each.file, "sha256": each.sha256, "copy": copy_name(each.file, each.sha256)} for each in plugin.modules
    ]
    return {**about, "modules": modules} if modules else about


def tell_plugins() -> None:
    """One line in the log for each loaded plugin: when it was loaded, a command had no log yet."""
    for plugin in LOADED:
        names = ", ".join(f"{each.kind} {each.name}" for each in plugin.names)
        if plugin.python:
            log.warning("%s: %s", plugin.objects, NOT_ALONE)
        elif plugin.is_file:
            log.info("plugin %s (sha256 %s): %s", plugin.file, plugin.sha256[:12], names)
        else:
            log.info("plugin %s %s: %s", plugin.distribution, plugin.version, names)


def copies() -> dict[str, str]:
    """The texts of the loaded files, by their names in a run folder. They are for reading: nothing runs them."""
    files = [plugin for plugin in LOADED if plugin.is_file]
    texts = {copy_name(plugin.file.name, plugin.sha256): plugin.text for plugin in files}
    texts |= {copy_name(each.file, each.sha256): each.text for plugin in files for each in plugin.modules}
    return {name: text.decode("utf-8", errors="replace") for name, text in texts.items()}


def copy_name(name: str, sha256: str) -> str:
    """Where the copy of a plugin, or of a module of its folder, lies in a run folder: all in one folder."""
    return f"{PLUGINS}/{sha256[:8]}-{name.replace('/', '.')}"


def require_plugins(run: Path) -> None:
    """Check that the plugins that a run was trained with are loaded, with the same text unless --plugin-changed.

    Raises:
        PluginError: which is missing, and the word to give.
    """
    for entry in _entries(run):
        _require(run, entry)


@contextmanager
def plugins_of(run: Path) -> Iterator[None]:
    """Within the block the plugins of a run are there: objects of Python that this process has given it, too.

    Raises:
        PluginError: as ``require_plugins``.
    """
    with objects_of(run):
        require_plugins(run)
        yield


@contextmanager
def objects_of(run: Path) -> Iterator[None]:
    """Within the block the objects of Python that this process has given a run are there; its other plugins may not be.

    Of a model that several runs make, those of the first, whose config is the model's.
    """
    members = read_members(run)
    first = run if members is None else run.parent / members.runs[0]
    with again([str(entry.get("python")) for entry in _entries(first) if "python" in entry]):
        yield


def _entries(run: Path) -> list[Mapping[str, Any]]:
    if not (run / RECEIPT).exists():
        return []
    entries = read_json(run / RECEIPT).get("plugins", [])
    return [each for each in entries if isinstance(each, Mapping)] if isinstance(entries, list) else []


def _require(run: Path, entry: Mapping[str, Any]) -> None:
    package, name, sha256 = (str(entry.get(field, "")) for field in ("package", "file", "sha256"))
    if package:
        if not any(plugin.distribution == package for plugin in LOADED):
            raise PluginError(
                f"{safe(run)}: was trained with the package {safe(package)} {safe(entry.get('version'))}, which is not "
                "installed\n  rule: a run is read with the plugins that it was trained with\n  remedy: install it"
            )
        return
    if "python" in entry:
        if any(plugin.python == entry["python"] for plugin in LOADED):
            return
        objects = str(entry.get("objects", ""))
        like_these = [each for each in LOADED if each.python and parts_of(objects) <= parts_of(each.objects)]
        if like_these and changed_is_allowed():
            return
        remedy = "add plugin_changed=True if these are meant" if like_these else "train again with them"
        raise PluginError(
            f"{safe(run)}: was trained with {safe(objects)}, {NOT_ALONE}\n  rule: such objects last "
            f"as long as the Python process that gave them\n  remedy: {remedy}, or write them into a "
            "file and give it with plugins=[FILE]: docs/plugins.md"
        )
    files = [plugin for plugin in LOADED if plugin.is_file]
    same = next((plugin for plugin in files if plugin.sha256 == sha256), None)
    if same is not None:
        _require_modules(run, entry, same)
        return
    same_name = [plugin for plugin in files if plugin.file.name == name]
    if same_name and changed_is_allowed():
        return
    rule = "a run is read with the plugins that it was trained with; a run folder names none to be loaded"
    if same_name:
        raise PluginError(
            f"{safe(run)}: was trained with another text of {safe(name)}: sha256 {safe(sha256[:12])}, and "
            f"{same_name[0].file} has {same_name[0].sha256[:12]}\n  rule: {rule}\n  remedy: give the file of then (its "
            f"copy is {safe(run / copy_name(name, sha256))}), or add --plugin-changed"
        )
    raise PluginError(
        f"{safe(run)}: was trained with the plugin {safe(name)} (sha256 {safe(sha256[:12])}), which is not loaded\n"
        f"  rule: {rule}\n  remedy: add {safe(shlex.join(plugin_words(run)))}, in Python "
        f"da6401.plugins.load({safe(name)!r}); what it was can be read in {safe(run / copy_name(name, sha256))}, and "
        "is run only from a place of your own"
    )


def _require_modules(run: Path, entry: Mapping[str, Any], plugin: Plugin) -> None:
    """Of a run that records the modules of its plugin's folder: they have the same texts unless --plugin-changed."""
    modules = entry.get("modules", [])
    then = {str(each.get("file")): each for each in modules if isinstance(each, Mapping)}
    now = {each.file: each.sha256 for each in plugin.modules}
    for name, each in then.items():
        sha256 = str(each.get("sha256", ""))
        if now.get(name) != sha256 and not changed_is_allowed():
            has = f"it has {now[name][:12]} now" if name in now else "it is not imported now"
            raise PluginError(
                f"{safe(run)}: was trained with another text of {safe(name)}, which {plugin.file} imports: sha256 "
                f"{safe(sha256[:12])}, and {has}\n  rule: a run is read with the plugins that it was trained with, and "
                f"with the modules of their folder\n  remedy: give the text of then (its copy is "
                f"{safe(run / copy_name(name, sha256))}), or add --plugin-changed"
            )
