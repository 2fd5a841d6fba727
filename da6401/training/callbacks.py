"""The callbacks of plugins: what follows a run from its first epoch to its result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from da6401.config.schema import RunConfig
from da6401.plugins.in_use import PluginTime
from da6401.plugins.registered import timed
from da6401.registry import CALLBACKS
from da6401.runs.run_folder import RunResult
from da6401.training.loop import Watcher


class Callbacks:
    """A run's callbacks, those that `callbacks.NAME.on` switches on, and whoever else watches its epochs.

    Args:
        plugin_time: measures what plugins take of each epoch.
    """

    def __init__(self, cfg: RunConfig, out: Path, watcher: Watcher | None, plugin_time: PluginTime) -> None:
        keys = {name: getattr(cfg.callbacks, name, None) for name in CALLBACKS}
        self._made = {name: CALLBACKS[name](each, out) for name, each in keys.items() if getattr(each, "on", False)}
        self._watcher = watcher
        self._time = plugin_time
        self._epochs = 0  # of this process

    def run_begins(self) -> None:
        """Before the first epoch of this process."""
        self._call("run_begins")
        self._time.epoch_begins()

    def epoch_done(self, epoch: int, values: Mapping[str, float]) -> None:
        """After each epoch; the sweep's watcher comes last, since it may end the run."""
        self._call("epoch_done", epoch, dict(values))
        self._epochs += 1
        self._time.epoch_done(epoch, first=self._epochs == 1)
        if self._watcher is not None:
            self._watcher.epoch_done(epoch, values)

    def run_done(self, result: RunResult) -> None:
        """Once, when result.json is written, however the run has ended."""
        self._call("run_done", result)

    def _call(self, name: str, *given: Any) -> None:
        for own, each in self._made.items():
            if (method := getattr(each, name, None)) is not None:
                timed("callback", own, method)(*given)
