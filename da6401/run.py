"""run: the arrow as code, from a configuration to a finished run folder."""

from __future__ import annotations

import logging
import time
import traceback
import uuid
from pathlib import Path

from da6401.config.check import tree_of
from da6401.config.schema import PretrainedConfig, RunConfig
from da6401.data.sources import load_training_data
from da6401.errors import DivergedError, InterruptedRun, UserError
from da6401.models.build import build_model
from da6401.models.counts import count_layers, describe
from da6401.rundir import CONFIG, RECEIPT, RunResult, Status, claim, write_json, write_result, write_yaml
from da6401.runtime import choose_device, prepare, receipt, stop_on_signals
from da6401.tracking import open_tracker
from da6401.train.loop import History, fit

log = logging.getLogger(__name__)


def run(cfg: RunConfig, out: Path) -> RunResult:
    """Train one configuration in a new folder and say how it ended.

    Raises:
        UserError: nothing was trained, or nothing can be: the message says what to mend.
        DivergedError, InterruptedRun: ended early; result.json says so, and the checkpoints before it are kept.
    """
    started = time.perf_counter()
    device = choose_device(cfg.device)
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    data = load_training_data(cfg.data)
    for note in data.notes:
        log.info(note)
    classes = list(data.class_names)
    model = build_model(cfg.model, num_classes=len(classes), image_size=cfg.data.image_size)
    layers = count_layers(model, cfg.data.image_size)
    log.info(describe(layers))

    claim(out)
    write_yaml(out / CONFIG, tree_of(cfg))
    receipt_of_run = receipt(device=device, seed=cfg.seed, fingerprint=data.fingerprint, class_names=classes)
    write_json(out / RECEIPT, {**receipt_of_run, "skipped": [vars(bad) for bad in data.skipped], "notes": data.notes})
    history = History()

    def finish(status: Status, reason: str = "") -> RunResult:
        result = RunResult(
            status=status, val_accuracy=history.val_accuracy, val_loss=history.val_loss, best_epoch=history.best_epoch,
            epochs_run=history.epochs_run, test_accuracy=None, test_loss=None,
            parameters=sum(layer.parameters for layer in layers), macs=sum(layer.macs for layer in layers),
            seconds=time.perf_counter() - started, reason=reason,
        )  # fmt: skip
        write_result(out, result)
        return result

    try:
        with (
            stop_on_signals() as stop,
            open_tracker(
                cfg.tracking,
                run_id=f"{out.name}-{uuid.uuid4().hex[:8]}",
                name=out.name,
                group=cfg.study,
                config=tree_of(cfg),
                out=out,
            ) as tracker,  # fmt: skip
        ):
            fit(
                model, data, trainer=cfg.trainer, optimizer_cfg=cfg.optimizer, schedule=cfg.schedule,
                augmentation=cfg.augmentation, seed=cfg.seed, device=device, tracker=tracker, stop=stop,
                backbone_lr_factor=cfg.model.backbone_lr_factor if isinstance(cfg.model, PretrainedConfig) else 1.0,
                history=history, about={"class_names": classes, "config": tree_of(cfg)}, out=out,
            )  # fmt: skip
    except DivergedError as error:
        finish("diverged", str(error))
        raise
    except InterruptedRun as error:
        finish("interrupted", str(error))
        raise
    except Exception as error:
        finish("failed", str(error) if isinstance(error, UserError) else traceback.format_exc())
        raise
    result = finish("completed")
    log.info(
        "validation accuracy %.4f in epoch %d of %d, %.1f s, in %s",
        result.val_accuracy, result.best_epoch, result.epochs_run, result.seconds, out,
    )  # fmt: skip
    return result
