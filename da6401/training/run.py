"""run: from a configuration to a finished run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from da6401.config.schema import RunConfig
from da6401.config.validate import tree_of
from da6401.metrics.own_metrics import measured_with
from da6401.models.counts import check_batch_norm, describe
from da6401.models.freezing import describe_schedule
from da6401.plugins.in_use import PluginTime, named_where_diverged, told_to_go_on
from da6401.plugins.needed import require_plugins, tell_plugins
from da6401.runs.atomic_files import OTHER_RUN, name_elsewhere
from da6401.runs.run_folder import RunResult
from da6401.runs.run_lock import can_resume, lock_run, refuse_links
from da6401.training.balance import imbalance_of, tell_imbalance
from da6401.training.callbacks import Callbacks
from da6401.training.device import choose_device, prepare, restore_torch_settings
from da6401.training.loop import RunHooks, Watcher, fit
from da6401.training.machine_failures import explain_failures
from da6401.training.memory import PeakMemory
from da6401.training.ranks import check_ranks, own_device, threads_of, together
from da6401.training.receipt import program
from da6401.training.run_writer import RunWriter, ending_of
from da6401.training.setup import load_images, set_up
from da6401.training.signals import stop_on_signals
from da6401.training.validation import check_metrics, reached

log = logging.getLogger(__name__)


def run(
    cfg: RunConfig, out: Path, watcher: Watcher | None = None, *, files: Mapping[str, str] = MappingProxyType({})
) -> RunResult:
    """Train one configuration in its folder, or resume it there; torch's global settings are restored afterwards.

    Args:
        files: texts that go into the folder besides a run's own, by their names in it.

    Raises:
        UserError: nothing was trained, or nothing can be: the message says what to do. A MachineError among them:
            the run is unfinished, and can resume on another machine.
        DivergedError, InterruptedRun, PrunedError: ended early; result.json says so, and its checkpoints are kept.
    """
    with (
        restore_torch_settings(),
        explain_failures(cfg),
        measured_with(cfg.metrics),
        name_elsewhere(OTHER_RUN, resumes=True),
    ):
        started, tree, resume = time.perf_counter(), tree_of(cfg), cfg.trainer.resume == "auto"
        refuse_links(out)
        can_resume(out, tree, resume=resume)  # refuses a folder before anything is loaded or written
        require_plugins(out)  # of the run that it resumes
        tell_plugins()
        plugin_time = PluginTime(cfg.trainer.epochs)
        program()  # the versions of now, when the code is loaded: loading the data may take an hour

        # ---- device, data, model, and what the model is fed with ----
        chosen = choose_device(cfg.device)
        check_ranks(cfg.trainer, chosen)
        device = own_device(chosen, 0) if cfg.trainer.devices > 1 else chosen
        prepare(seed=cfg.seed, threads=threads_of(cfg.trainer, device), deterministic=cfg.trainer.deterministic)
        data = load_images(cfg)
        for note in data.notes:
            log.info(note)
        check_metrics(cfg, data)
        imbalance = imbalance_of(data.train.labels_N, data.class_names)
        tell_imbalance(imbalance, cfg.trainer, fingerprint=data.fingerprint)
        memory = PeakMemory(device)
        setup = set_up(cfg, device, data)
        layers = setup.counts.layers
        batch_size = min(cfg.trainer.batch_size, len(data.train.labels_N))
        check_batch_norm(layers, batch_size=max(1, batch_size // cfg.trainer.devices))
        schedule = describe_schedule(cfg.model, epochs=cfg.trainer.epochs)
        log.info("\n".join([describe(layers), *schedule]))

        # ---- train, and write how it ended ----
        with lock_run(out, tree, resume=resume) as resumes:
            writer = RunWriter(setup, out, started=started, memory=memory)
            resumed = writer.begin(files, resumes=resumes)
            callbacks = Callbacks(cfg, out, watcher, plugin_time)
            with stop_on_signals() as stop, writer.tracker() as tracker:
                try:
                    with told_to_go_on(out, alone=watcher is None), named_where_diverged(cfg):
                        callbacks.run_begins()
                        with together(cfg.trainer, chosen, out, resumes=resumed is not None) as ranks:
                            hooks = RunHooks(tracker, callbacks, stop)
                            fit(replace(setup, ranks=ranks), hooks, writer.history, out=out, resumed=resumed)
                except BaseException as error:
                    if ending := ending_of(error, cfg):
                        callbacks.run_done(writer.finish(tracker, *ending))
                    raise
                with told_to_go_on(out, alone=watcher is None):
                    result = writer.finish(tracker, "completed")
                callbacks.run_done(result)
                value = reached(cfg, result, images=len(data.validation.names))
                epochs = f"epoch {result.best_epoch} of {result.epochs_run}"
                log.info("%s in %s, %.1f s, in %s", value, epochs, result.seconds, out)
        return result
