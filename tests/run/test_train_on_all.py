"""trainer.train_on=all: the validation images are trained on too, so that no number is claimed of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from da6401.data.sources import load_training_data
from da6401.errors import InterruptedRun
from da6401.runs.run_folder import BEST, CALIBRATION, VALIDATION_CSV, read_metrics, read_result
from da6401.training.checkpoint import load_checkpoint
from da6401.training.run import run
from da6401.training.setup import load_images
from tests.tiny_runs import SMALL, SMALL_BACKBONE, compose, typed

pytestmark = pytest.mark.integration

ALL = (*SMALL, "trainer.train_on=all")


def test_it_sees_every_image_once_an_epoch_and_keeps_the_last(tmp_path: Path) -> None:
    cfg = compose(*ALL)
    split, whole = load_training_data(cfg.data), load_images(cfg)
    assert whole.train.names == (*split.train.names, *split.validation.names)
    rows = torch.arange(len(whole.train.names))
    pixels = torch.cat([each.images_NCHW[torch.arange(len(each.names))] for each in (split.train, split.validation)])
    assert torch.equal(whole.train.images_NCHW[rows], pixels)
    assert torch.equal(whole.train.labels_N, torch.cat([split.train.labels_N, split.validation.labels_N]))
    assert whole.fingerprint != split.fingerprint

    result = run(cfg, tmp_path / "run")
    assert (result.status, result.best_epoch, result.val_accuracy, result.val_loss) == ("completed", 2, None, None)
    assert not any(name.startswith("val_") for line in read_metrics(tmp_path / "run") for name in line)
    assert not (tmp_path / "run" / VALIDATION_CSV).exists()
    assert not (tmp_path / "run" / CALIBRATION).exists()
    assert result.best_weights_sha256 == result.weights_sha256
    plain = run(replace(cfg, trainer=replace(cfg.trainer, train_on="train")), tmp_path / "plain")
    assert plain.weights_sha256 != result.weights_sha256


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    from da6401.training import loop

    class Stop:
        def epoch_done(self, epoch: int, values: object) -> None:
            if epoch == 1:
                raise InterruptedRun(2)

    cfg = compose(*ALL)
    whole = run(cfg, tmp_path / "whole")
    watcher: loop.Watcher = Stop()
    with pytest.raises(InterruptedRun):
        run(cfg, tmp_path / "run", watcher)
    assert read_result(tmp_path / "run").val_accuracy is None
    assert run(cfg, tmp_path / "run").weights_sha256 == whole.weights_sha256


def test_the_verbs_take_it(tmp_path: Path) -> None:
    assert typed("train", *SMALL, "hydra.run.dir=plain", cwd=tmp_path)[0] == 0
    code, out, _ = typed("train", *ALL, "hydra.run.dir=run", cwd=tmp_path)
    assert code == 0
    assert "validation loss" not in out
    assert "trained on all images: da6401 evaluate tells the test accuracy" in out
    assert "All 36 images of train and validation are trained on (trainer.train_on=all)." in out
    for words, said in (
        (("evaluate", "run"), "test accuracy"),
        (("report", "run"), "report.html"),
        (("compare", "run", "plain"), "run"),
        (("compare", "run", "plain", "--page", "page.html"), "page.html"),
        (("explain", "run", "--split", "test"), ""),
        (("reproduce", "run"), "reproduced: identical metrics"),
        (("export", "run", "--out", "exported"), ""),
    ):
        code, out, err = typed(*words, cwd=tmp_path)
        assert (code, said in out) == (0, True), (words, out, err)
    code, _, err = typed("evaluate", "run", cwd=tmp_path)
    assert code == 0, err
    (tmp_path / "a.png").write_bytes(b"")
    for words in (("predict", "run", "a.png", "--calibrated"), ("export", "run", "--calibrated")):
        code, _, err = typed(*words, cwd=tmp_path)
        assert (code, err.count("\n")) == (2, 1)
        assert "none was left to fit a temperature on: leave out --calibrated" in err
    notice = "da6401: run: was trained on these validation images, too (trainer.train_on=all)"
    assert notice in typed("explain", "run", cwd=tmp_path)[2]
    assert notice not in typed("explain", "run", "--split", "test", cwd=tmp_path)[2]
    assert notice not in typed("explain", "plain", cwd=tmp_path)[2]


def test_8_bits_are_measured_on_images_that_it_was_trained_on(tmp_path: Path) -> None:
    for name, words, said, other in (
        ("run", ALL, "accuracy on images that it was trained on", "validation accuracy"),
        ("plain", SMALL, "validation accuracy", "trained on"),
    ):
        run(compose(*words), tmp_path / name)
        code, out, err = typed("export", name, "--int8", "--out", f"{name}-8", cwd=tmp_path)
        assert code == 0, err
        (line,) = (line for line in out.splitlines() if "model.int8.onnx" in line)
        assert said in line
        assert other not in line
        assert ("95% interval" in line) == (name == "plain")
        readme = (tmp_path / f"{name}-8" / "README.md").read_text().partition("## 8 bits")[2]
        assert f"has {said} 0." in readme
        assert other not in readme
        about = json.loads((tmp_path / f"{name}-8" / "model.json").read_text())["int8"]
        assert about["split"] == ("train" if name == "run" else "validation")


def test_a_winner_is_trained_again_on_all_images(tmp_path: Path) -> None:
    sweep = ("--multirun", "optimizer.lr=1e-3,1e-2", "hydra.sweep.dir=sweep", "sweep.confirm_top=1",
             "sweep.confirm_seeds=2")  # fmt: skip
    assert typed("train", *SMALL, *sweep, cwd=tmp_path)[0] == 0
    winner = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["winner"]
    code, out, err = typed("reproduce", winner, "trainer.train_on=all", cwd=tmp_path)
    assert code == 0, err
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert read_result(folder).epochs_run == 2
    assert f"test it: da6401 evaluate {folder.relative_to(tmp_path)}" in out
    code, out, err = typed("evaluate", str(folder), cwd=tmp_path)
    assert (code, "test accuracy" in out) == (0, True), err


def test_cached_features_are_those_of_all_images(tmp_path: Path) -> None:
    frozen = (*SMALL_BACKBONE, "model=efficientnet_lite0", "model.weights=none", "data.image_size=32",
              "model.freeze_depth=8", "augmentation=none", "trainer.epochs=1")  # fmt: skip
    results = [
        run(compose(*frozen, "trainer.train_on=all", f"model.feature_cache={mode}"), tmp_path / mode)
        for mode in ("auto", "off")
    ]
    first, second = (load_checkpoint(tmp_path / mode / BEST)["model"] for mode in ("auto", "off"))
    assert results[0].epochs_run == 1
    for name, tensor in first.items():  # features are computed in other batches, whose sums round otherwise
        torch.testing.assert_close(tensor, second[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "words",
    [("trainer.patience=3",), ("data.fold=1/3",), ("--multirun", "optimizer.lr=1e-3,1e-2")],
)
def test_what_needs_validation_images_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    code, _, err = typed("train", *ALL, *words, cwd=tmp_path)
    assert code == 2
    assert "trainer.train_on=all" in err
    assert not (tmp_path / "outputs").exists()


def test_wandb_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, _, err = typed("train", *ALL, "tracking=wandb", "hydra.run.dir=run", cwd=tmp_path)
    assert code == 0, err
    assert "could not" not in err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "completed"
