"""A run that was stopped at any moment goes on and ends with the weights of one that never stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from da6401.config.schema import RunConfig
from da6401.errors import InterruptedRun, ModelError, PrunedError, RunError
from da6401.models.stages import StagedModel
from da6401.runs.run_folder import LAST, METRICS, RECEIPT, RESULT, read_metrics, read_result
from da6401.training import epoch_inputs, validation
from da6401.training.checkpoint import load_checkpoint
from da6401.training.run import run
from tests.image_trees import image_tree
from tests.outcomes import outcome, stop_at
from tests.tiny_runs import SMALL, compose

# Everything that has a state of its own: dropout, mixup, augmentation, both averages of the weights, batch norm.
HARD = (
    *SMALL, "trainer.epochs=4", "model.dropout=0.3", "model.block_dropout=0.1", "augmentation=strong",
    "augmentation.cutmix=0.5", "trainer.ema_decay=0.9", "trainer.label_smoothing=0.1", "trainer.clip_norm=1.0",
    "trainer.average_end=0.5",
)  # fmt: skip
FLAT = (
    *(text for text in SMALL if not text.startswith("data")), "data=folder", "data.image_size=8",
    "data.val_fraction=0.25", "trainer.batch_size=2", "trainer.epochs=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(compose(*HARD), folder)
    return outcome(folder)


@pytest.mark.parametrize("batch", [0, 1, 2, 4, 7, 11, 15])
def test_a_run_stopped_in_mid_epoch_goes_on_bit_for_bit(
    tmp_path: Path, batch: int, uninterrupted: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(batch, patch)
        with pytest.raises(InterruptedRun):
            run(compose(*HARD), tmp_path / "run")
    assert read_result(tmp_path / "run").status == "interrupted"
    torch.rand(3)  # the generator is somewhere else by the time that the run goes on
    run(compose(*HARD), tmp_path / "run")
    assert outcome(tmp_path / "run") == uninterrupted


def test_batches_that_are_augmented_together_give_the_same_bits(
    tmp_path: Path, uninterrupted: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (epoch_inputs, validation):  # as on a GPU
        monkeypatch.setattr(module, "batches_at_once", lambda values, batch_size, device: 3)
    run(compose(*HARD), tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(4, patch)
        with pytest.raises(InterruptedRun):
            run(compose(*HARD), tmp_path / "run")
    run(compose(*HARD), tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole") == uninterrupted


def test_steps_after_a_warm_up_go_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose(
        *SMALL, "trainer.epochs=4", "schedule=step", "schedule.warmup=0.25", "schedule.step_epochs=1",
        "schedule.step_factor=0.5", "optimizer.lr=0.01",
    )  # fmt: skip
    run(cfg, tmp_path / "whole")
    for batch in (2, 4):  # in the warm-up, and after it
        with monkeypatch.context() as patch:
            stop_at(batch, patch)
            with pytest.raises(InterruptedRun):
                run(cfg, tmp_path / "run")
    run(cfg, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert [line["lr"] for line in read_metrics(tmp_path / "run")] == pytest.approx([0.01, 0.01, 0.005, 0.0025])


def test_a_finished_run_or_another_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrunedError):
        run(compose(*SMALL), tmp_path / "pruned", _PruneAt(1))
    run(compose(*SMALL), tmp_path / "done")
    for folder, status in (("pruned", "pruned"), ("done", "completed")):
        assert read_result(tmp_path / folder).status == status
        with pytest.raises(RunError, match=status):
            run(compose(*SMALL), tmp_path / folder)
    (tmp_path / "done" / RESULT).unlink()
    with pytest.raises(RunError, match=r"another config .*seed"):
        run(compose(*SMALL, "seed=9"), tmp_path / "done")
    with pytest.raises(RunError, match="never"):
        run(compose(*SMALL, "trainer.resume=never"), tmp_path / "done")


def test_a_run_killed_between_its_last_files_is_finished(tmp_path: Path, uninterrupted: tuple[Any, ...]) -> None:
    run(compose(*HARD), tmp_path / "run")
    (tmp_path / "run" / RESULT).unlink()
    metrics = tmp_path / "run" / METRICS
    metrics.write_text(metrics.read_text().rpartition('{"epoch": 4')[0] + '{"epo')  # torn
    run(compose(*HARD), tmp_path / "run")
    assert outcome(tmp_path / "run") == uninterrupted


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda root: (root / "cat").rename(root / "wolf"), "the classes were cat, dog, and are dog, wolf"),
        (
            lambda root: image_tree(root, classes=["eel"], splits=["."]),
            "the classes were cat, dog, and are cat, dog, eel",
        ),
        (lambda root: shutil.copy(root / "dog" / "0.png", root / "cat" / "00.png"), "images were added"),
        (lambda root: (root / "cat" / "3.png").unlink(), "images were added, removed"),
        (lambda root: shutil.copy(root / "dog" / "3.png", root / "cat" / "3.png"), "renamed or changed"),
    ],
)
def test_a_run_does_not_go_on_with_other_images(
    tmp_path: Path, change: Callable[[Path], object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = image_tree(tmp_path / "data", splits=["."]), tmp_path / "run"
    cfg = compose(*FLAT, f"data.root={root}")
    stopped_run(cfg, out, 2, monkeypatch)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    change(root)
    with pytest.raises(RunError, match=f"since this run began: .*{reason}.*trainer.resume=never"):
        run(cfg, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_images_may_change_before_the_first_checkpoint_and_where_no_fingerprint_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = image_tree(tmp_path / "data", splits=["."]), tmp_path / "run"
    cfg = compose(*FLAT, f"data.root={root}")
    stopped_run(cfg, out, 2, monkeypatch)
    shutil.rmtree(out / "checkpoints")
    shutil.copy(root / "dog" / "0.png", root / "cat" / "4.png")
    stopped_run(cfg, out, 2, monkeypatch)
    receipt = json.loads((out / RECEIPT).read_text())
    del receipt["data_fingerprint"]  # as an older version wrote it
    (out / RECEIPT).write_text(json.dumps(receipt))
    shutil.copy(root / "dog" / "3.png", root / "cat" / "3.png")
    run(compose(*FLAT, f"data.root={root}", "data.cache=off"), out)
    assert read_result(out).status == "completed"


def stopped_run(cfg: RunConfig, out: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that a signal stops before this batch."""
    with monkeypatch.context() as patch:
        stop_at(batch, patch)
        with pytest.raises(InterruptedRun):
            run(cfg, out)


class _PruneAt:
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.seen: list[int] = []

    def epoch_done(self, epoch: int, values: Mapping[str, float]) -> None:
        self.seen.append(epoch)
        if epoch >= self.epoch:
            raise PrunedError(f"at epoch {epoch} with {values['val_accuracy']}")


def test_a_pruned_run_keeps_its_epochs(tmp_path: Path) -> None:
    watcher = _PruneAt(2)
    with pytest.raises(PrunedError):
        run(compose(*SMALL, "trainer.epochs=5"), tmp_path / "run", watcher)
    assert watcher.seen == [1, 2]
    result = read_result(tmp_path / "run")
    assert (result.status, result.epochs_run) == ("pruned", 2)
    assert len(read_metrics(tmp_path / "run")) == 2


def test_out_of_memory_halves_the_batch_and_keeps_its_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose(*SMALL, "model.batch_norm=false", "trainer.epochs=1")  # batch norm's statistics are a part's own
    run(cfg, tmp_path / "whole")
    original = StagedModel.forward

    def small_device(self: StagedModel, x: torch.Tensor, first: int = 0) -> torch.Tensor:
        if self.training and len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, x, first)

    monkeypatch.setattr(StagedModel, "forward", small_device)
    run(cfg, tmp_path / "parts")
    assert load_checkpoint(tmp_path / "parts" / LAST)["history"]["parts"] == 4
    assert (read_result(tmp_path / "whole").batch_parts, read_result(tmp_path / "parts").batch_parts) == (1, 4)
    with pytest.raises(ModelError, match=r"trainer\.on_oom=accumulate"):
        run(compose(*SMALL, "trainer.on_oom=fail"), tmp_path / "fails")
    whole, parts = (load_checkpoint(tmp_path / name / LAST)["model"] for name in ("whole", "parts"))
    for name in whole:
        assert torch.allclose(whole[name], parts[name], atol=1e-5), name
