"""A study's trials run the same plugins: their hashes are recorded in the study."""

from __future__ import annotations

from typing import Any

import optuna

from da6401.errors import PluginError
from da6401.plugins.loading import changed_is_allowed
from da6401.plugins.needed import recorded

PLUGINS = "plugins"  # user attribute of the study: what a receipt says of them


def check_same_plugins(study: optuna.Study) -> None:
    """Check that this process has the plugins that the study's trials were trained with, and record those of a new one.

    Workers are checked, too: a file that changes while a sweep runs is not loaded by the next worker.

    Raises:
        PluginError: they differ, and --plugin-changed was not said.
    """
    now, before = recorded(), study.user_attrs.get(PLUGINS)
    if before is None:
        if now:
            study.set_user_attr(PLUGINS, now)
        return
    if before == now or before == [_without_modules(each) for each in now]:  # an older version recorded files alone
        return
    if not changed_is_allowed():
        raise PluginError(
            f"the study {study.study_name} was trained with {_named(before)}, and this command has {_named(now)}\n"
            f"  rule: all trials of a study run the same plugins\n  remedy: {_remedy(now)}"
        )
    study.set_user_attr(PLUGINS, now)


def _without_modules(plugin: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plugin.items() if name != "modules"}


def _named(plugins: list[dict[str, Any]]) -> str:
    return ", ".join(map(_name, plugins)) or "no plugin"


def _remedy(now: list[dict[str, Any]]) -> str:
    if any("python" in each for each in now):
        return "give the same objects, take another study name, or add plugin_changed=True"
    return "give the same files, take another study name, or add --plugin-changed"


def _name(plugin: dict[str, Any]) -> str:
    if "python" in plugin:
        return f"{plugin['objects']} from Python (call {plugin['python'][:8]})"
    if "file" not in plugin:
        return f"{plugin['package']} {plugin['version']}"
    files = (plugin, *plugin.get("modules", []))
    return ", ".join(f"{file['file']} (sha256 {file['sha256'][:12]})" for file in files)
