"""Features of frozen stages kept: the same answers as when every stage is computed in every epoch."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import models

from da6401.cli import main
from da6401.commands.evaluate import evaluate_run
from da6401.commands.reproduce import reproduce_run
from da6401.data.cache.cache_folder import cache_folder, list_entries
from da6401.data.sources import load_training_data
from da6401.errors import DataError, InterruptedRun, ModelError
from da6401.models.build import build_model
from da6401.models.counts import count
from da6401.models.freezing import freeze_plan
from da6401.models.stages import StagedModel
from da6401.registry import BACKBONES
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import RECEIPT, TEST_CSV, VALIDATION_CSV, read_result
from da6401.training import checkpoint_writer, frozen_features, loop
from da6401.training.arithmetic import Arithmetic
from da6401.training.device import prepare, restore_torch_settings
from da6401.training.epoch_inputs import TrainingInputs
from da6401.training.run import run
from da6401.training.setup import TrainingSetup
from da6401.training.signals import StopFlag
from da6401.training.state import History
from da6401.training.tracking import open_tracker
from da6401.training.validation import evaluate
from tests.narrow import narrow_backbones
from tests.outcomes import TIMINGS, epochs, outcome, stop_at
from tests.tiny_runs import SMALL_BACKBONE, compose

CPU = torch.device("cpu")
SIZES = {"inception_v3": 75}
RESNET = (
    *SMALL_BACKBONE, "data.image_size=32", "data.images_per_class=5", "model=resnet18", "model.weights=none",
    "trainer.epochs=3", "optimizer=sgd",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _torch_as_before() -> Iterator[None]:
    with restore_torch_settings():
        yield


@pytest.fixture(autouse=True)
def an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DA6401_CACHE_DIR", str(tmp_path / "cache"))


def curves(folder: Path) -> list[float]:
    return [value for line in epochs(folder) for value in line.values()]


def facts(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / RECEIPT).read_text())["features"]
    return found


# ---- every backbone ---------------------------------------------------------------------------------------------


class Bench:
    """One backbone built once, trained again and again from the same weights, without a run folder's checkpoints."""

    def __init__(self, *words: str, out: Path) -> None:
        self.cfg = compose(*words)
        prepare(seed=0, threads=1, deterministic=True)
        self.data = load_training_data(self.cfg.data)
        classes = len(self.data.class_names)
        self.model = build_model(self.cfg.model, num_classes=classes, image_size=self.cfg.data.image_size)
        self.start = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.counts = count(self.model, self.cfg.data.image_size)
        self.out = out

    def trained(self, **keys: Any) -> tuple[list[float], Tensor]:
        """The numbers of all epochs, and the probabilities (N, K) of the validation images after the last.

        Args:
            keys: what is otherwise in the model's configuration.
        """
        cfg = dataclasses.replace(self.cfg, model=dataclasses.replace(self.cfg.model, **keys))
        prepare(seed=0, threads=1, deterministic=True)
        self.model.load_state_dict(self.start)
        self.model.apply_freeze_plan(freeze_plan(cfg.model, cfg.trainer.epochs))
        inputs = TrainingInputs(cfg, self.model, self.data, self.counts, CPU)
        setup = TrainingSetup(cfg, CPU, self.data, self.model, self.counts, inputs)
        history = History()
        with open_tracker(cfg.tracking, run_id="a", name="a", group="a", config={}, out=self.out) as tracker:
            loop.fit(setup, loop.RunHooks(tracker, None, StopFlag()), history, out=self.out)
        values = [value for line in history.lines for name, value in line.items() if name not in TIMINGS]
        return values, evaluate(self.model, self.data.validation, Arithmetic(CPU), batch_size=8).probabilities_NK


@pytest.fixture
def no_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tested elsewhere, and VGG's have half a gigabyte."""
    monkeypatch.setattr(checkpoint_writer.CheckpointWriter, "save", lambda *_, **__: None)


def words_for(name: str) -> list[str]:
    return [
        "data=synthetic", f"data.image_size={SIZES.get(name, 32)}", "data.classes=3", "data.images_per_class=4",
        f"model={name}", "model.weights=none", "trainer.epochs=2", "trainer.batch_size=9", "trainer.threads=1",
        "optimizer=sgd", "optimizer.lr=1e-3", "optimizer.momentum=0",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("no_checkpoints")
@pytest.mark.parametrize("name", BACKBONES)
def test_kept_features_give_the_same_curves_and_predictions(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow_backbones(monkeypatch)
    bench = Bench(*words_for(name), out=tmp_path)
    stages = len(BACKBONES[name].stages)
    for depth in (1, stages - 1, stages):  # GoogLeNet is tested at every depth
        plain, expected = bench.trained(freeze_depth=depth, feature_cache="off")
        assert not list_entries()
        kept, answers = bench.trained(freeze_depth=depth, feature_cache="on")
        (entry,) = list_entries()
        assert entry.kind == "features"
        assert kept == pytest.approx(plain, rel=1e-5, abs=1e-5)
        torch.testing.assert_close(answers, expected, rtol=1e-5, atol=1e-5)
        assert main(["data", "cache", "--clear", "all"]) == 0


@pytest.mark.usefixtures("no_checkpoints")
def test_float16_moves_the_losses_by_less_than_two_thousandths(tmp_path: Path) -> None:
    """Measured: 0.0008. It rounds features to 11 bits; where that decides which class is first, accuracies jump."""
    bench = Bench(*words_for("resnet18"), out=tmp_path)
    for depth in (1, 2, 5):
        plain, expected = bench.trained(freeze_depth=depth, feature_cache="off")
        half, answers = bench.trained(freeze_depth=depth, feature_cache="on", feature_dtype="float16")
        assert half == pytest.approx(plain, abs=2e-3)
        assert half != plain
        torch.testing.assert_close(answers, expected, rtol=0, atol=2e-3)


@pytest.mark.slow
def test_googlenet_from_a_weights_file_at_every_depth(
    tmp_path: Path, no_checkpoints: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    original = models.googlenet(weights=None, aux_logits=True, transform_input=True, init_weights=False)
    torch.save(original.state_dict(), tmp_path / "googlenet.pth")
    words = (f"model.weights={tmp_path / 'googlenet.pth'}", "trainer.epochs=1")
    bench = Bench(*words_for("googlenet"), *words, out=tmp_path)
    for depth in range(13):
        plain, expected = bench.trained(freeze_depth=depth, feature_cache="off")
        kept, answers = bench.trained(freeze_depth=depth, feature_cache="on")
        assert kept == pytest.approx(plain, rel=1e-5, abs=1e-5)
        torch.testing.assert_close(answers, expected, rtol=1e-5, atol=1e-5)
    assert len(list_entries()) == 12  # at depth 0 there is nothing to keep


# ---- whole runs -------------------------------------------------------------------------------------------------


def test_a_schedule_with_flips_is_followed_phase_by_phase_and_ends_the_same(tmp_path: Path) -> None:
    """Head first, then stage by stage: each phase has its own cut, and the flips are those of the plain run."""
    words = (
        *RESNET, "trainer.epochs=4", "model.freeze_depth=3", "model.head_epochs=1", "model.unfreeze_every=2",
        "model.freeze_last=1", "model.stage_lr_decay=0.5", "augmentation.flip=0.5", "optimizer.lr=1e-3",
    )  # fmt: skip
    run(compose(*words, "model.feature_cache=off"), tmp_path / "off")
    result = run(compose(*words, "model.feature_cache=on"), tmp_path / "on")
    assert curves(tmp_path / "on") == pytest.approx(curves(tmp_path / "off"), rel=1e-5, abs=1e-5)
    assert [(each["cut"], each["on"], each["views"], each["exact"]) for each in facts(tmp_path / "on")] == [
        (5, True, 2, True), (3, True, 2, True),
    ]  # fmt: skip
    assert all(each["extracted_by_this_run"] and each["rows"] == 2 * 12 + 3 for each in facts(tmp_path / "on"))
    assert [each["on"] for each in facts(tmp_path / "off")] == [False, False]
    stages = json.loads((tmp_path / "on" / RECEIPT).read_text())["stages"]
    assert [stage["name"] for stage in stages if not stage["frozen"]] == ["layer3", "head"]
    assert result.trainable_parameters == sum(stage["trainable_parameters"] for stage in stages)
    assert 50 < result.peak_memory_mb < 20_000
    answers = read_predictions(tmp_path / "on" / VALIDATION_CSV)
    right = (answers.probabilities_NK.argmax(1) == answers.labels_N).mean()
    assert right == pytest.approx(result.val_accuracy)


def test_a_stopped_run_goes_on_bit_for_bit_in_the_middle_of_a_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        *RESNET, "model=efficientnet_lite0", "model.weights=none", "trainer.epochs=4", "model.freeze_depth=7",
        "model.head_epochs=1", "model.unfreeze_every=2", "optimizer=adamw", "optimizer.weight_decay=0.1",
        "augmentation=standard", "model.feature_views=3", "model.feature_cache=on", "trainer.ema_decay=0.9",
    )  # fmt: skip
    run(compose(*words), tmp_path / "whole")
    for looks in (1, 4, 3):  # in the first phase, in the second, and once more
        with monkeypatch.context() as patch:
            stop_at(looks, patch)
            with pytest.raises(InterruptedRun):
                run(compose(*words), tmp_path / "run")
    run(compose(*words), tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert not facts(tmp_path / "run")[0]["exact"]
    assert (tmp_path / "run" / VALIDATION_CSV).read_bytes() == (tmp_path / "whole" / VALIDATION_CSV).read_bytes()


def test_kept_features_serve_other_runs_and_evaluate_and_reproduce(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*RESNET, "trainer.epochs=2", "model.freeze_depth=5", "model.feature_cache=on")
    run(compose(*words), tmp_path / "first")

    def never(*_: object) -> None:
        raise AssertionError("the frozen stages were computed again")

    with monkeypatch.context() as patch:
        patch.setattr(frozen_features.FeatureCache, "_extract", never)
        run(compose(*words, "optimizer.lr=0.02", "model.dropout=0.5"), tmp_path / "second")
        assert not facts(tmp_path / "second")[0]["extracted_by_this_run"]
        assert reproduce_run(tmp_path / "first", []) == 0
        for other in ("seed=4", "model.freeze_depth=4", "data.split_seed=3", "trainer.precision=bf16"):
            with pytest.raises(AssertionError, match="computed again"):
                run(compose(*words, other), tmp_path / other)
    assert "identical metrics" in capsys.readouterr().out
    assert evaluate_run(tmp_path / "first") == 0
    answers = read_predictions(tmp_path / "first" / TEST_CSV)
    right = (answers.probabilities_NK.argmax(1) == answers.labels_N).mean()
    assert right == pytest.approx(read_result(tmp_path / "first").test_accuracy)


def test_an_interrupted_extraction_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = frozen_features.FeatureCache._extract

    def interrupted(self: frozen_features.FeatureCache, path: Path, *rest: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        return original(self, path, *rest)

    words = (*RESNET, "model.freeze_depth=5", "model.feature_cache=on", "trainer.epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(frozen_features.FeatureCache, "_extract", interrupted)
        with pytest.raises(InterruptedRun):
            run(compose(*words), tmp_path / "run")
    assert read_result(tmp_path / "run").status == "interrupted"
    assert list((cache_folder() / frozen_features.KIND).iterdir()) == []
    assert run(compose(*words), tmp_path / "run").status == "completed"


def test_what_the_cache_does_not_take_ends_the_run_only_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    words = (*RESNET, "model.freeze_depth=5", "trainer.epochs=1")
    with pytest.raises(DataError, match=r"use model\.feature_cache=off"):
        run(compose(*words, "model.feature_cache=on"), tmp_path / "on")
    assert run(compose(*words), tmp_path / "auto").status == "completed"
    assert facts(tmp_path / "auto")[0]["on"] is False


def test_float16_that_is_too_small_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = StagedModel.normalise
    monkeypatch.setattr(StagedModel, "normalise", lambda self, x: original(self, x) * 1e8)
    words = (*RESNET, "model.freeze_depth=1", "model.feature_cache=on", "model.feature_dtype=float16")
    with pytest.raises(ModelError, match=r"resnet18 at stage stem are too large for it; use float32"):
        run(compose(*words), tmp_path / "run")
