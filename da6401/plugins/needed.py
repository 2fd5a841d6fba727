"""The plugins of a run: what its receipt records of them, the copies in its folder, and whether they are loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from da6401.errors import PluginError
from da6401.plugins.loading import changed_is_allowed
from da6401.plugins.registered import LOADED
from da6401.redact import safe
from da6401.runs.run_folder import PLUGINS, RECEIPT, read_json

log = logging.getLogger(__name__)


def recorded() -> list[dict[str, str]]:
    """What a receipt says of the loaded plugins: name and hash of a file, name and version of a package."""
    return [
        {"package": plugin.distribution, "version": plugin.version}
        if plugin.distribution
        else {"file": plugin.file.name, "sha256": plugin.sha256, "copy": copy_name(plugin.file.name, plugin.sha256)}
        for plugin in LOADED
    ]


def tell_plugins() -> None:
    """One line in the log for each loaded plugin: when it was loaded, a command had no log yet."""
    for plugin, about in zip(LOADED, recorded(), strict=True):
        names = ", ".join(f"{each.kind} {each.name}" for each in plugin.names)
        what = f"{plugin.file} (sha256 {plugin.sha256[:12]})" if plugin.sha256 else " ".join(about.values())
        log.info("plugin %s: %s", what, names)


def copies() -> dict[str, str]:
    """The texts of the loaded files, by their names in a run folder. They are for reading: nothing runs them."""
    files = [plugin for plugin in LOADED if not plugin.distribution]
    return {copy_name(plugin.file.name, plugin.sha256): plugin.text.decode("utf-8") for plugin in files}


def copy_name(name: str, sha256: str) -> str:
    """Where the copy of a plugin lies in a run folder."""
    return f"{PLUGINS}/{sha256[:8]}-{name}"


def require_plugins(run: Path) -> None:
    """Check that the plugins that a run was trained with are loaded, with the same text unless --plugin-changed.

    Raises:
        PluginError: which is missing, and the word to give.
    """
    if not (run / RECEIPT).exists():
        return
    entries = read_json(run / RECEIPT).get("plugins", [])
    entries = [each for each in entries if isinstance(each, Mapping)] if isinstance(entries, list) else []
    for entry in entries:
        _require(run, entry)


def _require(run: Path, entry: Mapping[str, Any]) -> None:
    package, name, sha256 = (str(entry.get(field, "")) for field in ("package", "file", "sha256"))
    if package:
        if not any(plugin.distribution == package for plugin in LOADED):
            raise PluginError(
                f"{safe(run)}: was trained with the package {safe(package)} {safe(entry.get('version'))}, which is not "
                "installed\n  rule: a run is read with the plugins that it was trained with\n  remedy: install it"
            )
        return
    files = [plugin for plugin in LOADED if not plugin.distribution]
    if any(plugin.sha256 == sha256 for plugin in files):
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
        f"  rule: {rule}\n  remedy: add --plugin {safe(name)}, in Python da6401.plugins.load({safe(name)!r}); what it "
        f"was can be read in {safe(run / copy_name(name, sha256))}, and is run only from a place of your own"
    )
