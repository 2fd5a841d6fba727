"""The plugins that a run uses: which of them a loss that is not finite may come from, and which of them are slow."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from da6401.config.quoting import quoted
from da6401.config.schema import RunConfig
from da6401.errors import DivergedError, PluginError
from da6401.plugins.registered import LOADED, REGISTERED, SPENT, Registered, as_plugin_error

log = logging.getLogger(__name__)

MAKE_THE_LOSS = ("model", "block", "backbone", "data_source", "augmentation", "optimizer", "schedule")
ONCE = "data_source"  # a kind that is called once a run; the others are called in each epoch
SLOW = 0.25  # of the time: from this share on a plugin is named
LEAST_SECONDS = 5.0  # of the whole run: less is not worth a word


def in_use(cfg: RunConfig) -> list[Registered]:
    """What the configuration chooses of the loaded plugins."""

    def chosen(each: Registered) -> bool:
        if each.kind in ("augmentation", "callback"):
            group = cfg.augmentation if each.kind == "augmentation" else cfg.callbacks
            return bool(getattr(getattr(group, each.name, None), "on", False))
        names = {
            "data_source": cfg.data.source, "optimizer": cfg.optimizer.name, "schedule": cfg.schedule.name,
            "metric": cfg.trainer.metric,
        }  # fmt: skip
        return names.get(each.kind, cfg.model.name) == each.name

    return [each for each in REGISTERED.values() if chosen(each)]


@contextmanager
def named_where_diverged(cfg: RunConfig) -> Iterator[None]:
    """Let a DivergedError of the block name the plugins that the loss depends on."""
    try:
        yield
    except DivergedError as error:
        used = [f"{each.kind} {each.name} ({each.where})" for each in in_use(cfg) if each.kind in MAKE_THE_LOSS]
        if not used:
            raise
        raise DivergedError(f"{error}; or look at the plugin's {', '.join(used)}") from error


@contextmanager
def told_to_go_on(out: Path, *, alone: bool) -> Iterator[None]:
    """Let what a plugin raises in the block, a run's training, say how the run goes on when the plugin is mended.

    Args:
        out: the run's folder, which the next command may have to name.
        alone: the run is no trial, which its sweep reports as failed.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        of_plugin = error if isinstance(error, PluginError) else as_plugin_error(error)
        if of_plugin is None or not alone or any(plugin.python for plugin in LOADED):  # whose objects are gone by then
            raise
        words = ["--plugin-changed"] if any(plugin.is_file for plugin in LOADED) else []
        added = shlex.join([*words, *quoted([f"hydra.run.dir={out}"])])
        raise PluginError(f"{of_plugin}\n  then: the same da6401 train with {added} goes on with the run") from error


class PluginTime:
    """Says once a run which plugins take much of its time; made before the data are loaded.

    Args:
        epochs: of the whole run.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._before = dict(SPENT)
        self._told = False
        self._began = 0.0
        self._at_begin: dict[tuple[str, str], float] = {}

    def epoch_begins(self) -> None:
        """Before the first epoch of this process; ``epoch_done`` begins the next."""
        self._began, self._at_begin = time.perf_counter(), dict(SPENT)

    def epoch_done(self, epoch: int, *, first: bool) -> None:
        """Compare what plugins took in the epoch, and their data source's share of it, with the epoch's time.

        Args:
            first: it is this process's first, which warms up; it is left out unless it is the only one.
        """
        if not self._told and not (first and epoch < self._epochs):
            slow = list(self._slow(epoch, time.perf_counter() - self._began))
            if slow:
                self._told = True
                log.warning("%s", "\n".join(slow))
        self.epoch_begins()

    def _slow(self, epoch: int, seconds: float) -> Iterator[str]:
        for (kind, name), spent in SPENT.items():
            if (kind, name) not in REGISTERED:
                continue
            own, whole = spent - self._at_begin.get((kind, name), 0.0), seconds
            if kind == ONCE:
                own = (spent - self._before.get((kind, name), 0.0)) / self._epochs
                whole += own
            if own > SLOW * whole and own * self._epochs > LEAST_SECONDS:
                of = "the run" if kind == ONCE else f"epoch {epoch}: {own:.2f} of {whole:.2f} s"
                yield f"plugin {REGISTERED[kind, name].where}: {kind} {name} takes {own / whole:.0%} of {of}"
