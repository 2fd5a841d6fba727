"""run(): from a configuration to a run folder, whatever the model; how it ends, and what it leaves."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

from da6401.config.compose import saved_config
from da6401.config.schema import CnnConfig
from da6401.errors import ConfigError, DivergedError, InterruptedRun, RunError
from da6401.models.build import build_model
from da6401.runs.run_folder import (
    BEST,
    CALIBRATION,
    CONFIG,
    LAST,
    METRICS,
    RECEIPT,
    RESULT,
    VALIDATION_CSV,
    read_metrics,
    read_result,
)
from da6401.training.checkpoint import load_checkpoint
from da6401.training.device import prepare
from da6401.training.run import run
from da6401.training.signals import stop_on_signals
from tests import forked
from tests.tiny_runs import DIVERGING, SMALL, SMALL_BACKBONE, compose


def weights(folder: Path, which: str = LAST) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(folder / which)["model"]
    return state


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_folder_holds_all_that_it_should(tmp_path: Path) -> None:
    cfg = compose(*SMALL)
    result = run(cfg, tmp_path / "run")
    folder = tmp_path / "run"
    names = {item.name for item in folder.iterdir() if not item.name.startswith(".")}
    assert names == {CONFIG, RECEIPT, METRICS, RESULT, VALIDATION_CSV, CALIBRATION, "checkpoints"}
    assert saved_config(folder / CONFIG) == cfg
    assert read_result(folder) == result
    assert result.status == "completed"
    assert result.epochs_run == 2
    assert result.test_accuracy is None
    assert result.parameters == sum(
        p.numel() for p in build_model(cfg.model, num_classes=3, image_size=16).parameters()
    )
    lines = read_metrics(folder)
    assert [line["epoch"] for line in lines] == [1, 2]
    best = max(lines, key=lambda line: (line["val_accuracy"], -line["val_loss"]))
    assert (result.best_epoch, result.val_accuracy, result.val_loss) == (
        best["epoch"], best["val_accuracy"], best["val_loss"],
    )  # fmt: skip
    receipt = json.loads((folder / RECEIPT).read_text())
    assert len(set(receipt["class_names"])) == 3
    assert len(receipt["data_fingerprint"]) == 64
    assert receipt["torch_build"] == torch.__version__


def test_the_seed_moves_the_weights_but_not_the_split(tmp_path: Path) -> None:
    for seed in (0, 1):
        run(compose(*SMALL, f"seed={seed}"), tmp_path / str(seed))
    prints = {json.loads((tmp_path / str(seed) / RECEIPT).read_text())["data_fingerprint"] for seed in (0, 1)}
    assert len(prints) == 1
    assert not same(weights(tmp_path / "0"), weights(tmp_path / "1"))


def test_frozen_stages_of_a_trained_run_are_bit_identical(tmp_path: Path) -> None:
    cfg = compose(
        *SMALL_BACKBONE, "data.image_size=32", "model=resnet18", "model.weights=none", "model.freeze_depth=3",
        "optimizer=sgd", "optimizer.weight_decay=0.1", "optimizer.momentum=0.9", "trainer.ema_decay=0.5",
        "augmentation=light", "trainer.epochs=1",
    )  # fmt: skip
    run(cfg, tmp_path / "run")
    prepare(seed=cfg.seed, threads=1, deterministic=True)
    start = build_model(cfg.model, num_classes=3, image_size=32).state_dict()
    for which in (LAST, BEST):
        end = weights(tmp_path / "run", which)
        frozen = [name for name in start if name.startswith(("stages.stem", "stages.layer1", "stages.layer2"))]
        trained = [name for name in start if name.startswith(("stages.layer3", "stages.layer4", "head"))]
        assert len(frozen) > 20
        assert all(torch.equal(start[name], end[name]) for name in frozen)
        assert sum(not torch.equal(start[name], end[name]) for name in trained) > 20


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"lower optimizer\.lr"):
        run(compose(*DIVERGING), tmp_path / "run")
    result = read_result(tmp_path / "run")
    assert result.status == "diverged"
    assert "loss is" in result.reason
    if result.epochs_run:
        assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())


def test_early_stopping_ends_the_run_after_patience(tmp_path: Path) -> None:
    cfg = compose(*SMALL, "optimizer.lr=1e-9", "schedule=constant", "trainer.epochs=30", "trainer.patience=2",
                  "model.batch_norm=false")  # fmt: skip
    result = run(cfg, tmp_path / "run")
    assert result.status == "completed"
    accuracies = [line["val_accuracy"] for line in read_metrics(tmp_path / "run")]
    assert result.epochs_run == accuracies.index(max(accuracies)) + 1 + 2


def test_a_folder_with_a_run_is_never_overwritten(tmp_path: Path) -> None:
    run(compose(*SMALL), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="holds a run already"):
        run(compose(*SMALL, "seed=1"), tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_network_that_does_not_fit_trains_nothing(tmp_path: Path) -> None:
    wrong = dataclasses.replace(compose(*SMALL), model=CnnConfig(blocks=5))
    with pytest.raises(Exception, match="block5"):
        run(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fp16_without_cuda_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="needs CUDA"):
        run(compose(*SMALL, "trainer.precision=fp16"), tmp_path / "run")
    with pytest.raises(ConfigError, match="0 CUDA devices"):
        run(compose(*SMALL, "device=cuda"), tmp_path / "run2")


def test_bf16_and_either_layout_train_and_agree_roughly(tmp_path: Path) -> None:
    for name, extra in {
        "fp32": (),
        "bf16": ("trainer.precision=bf16",),
        "nchw": ("trainer.channels_last=false",),
    }.items():
        run(compose(*SMALL, *extra), tmp_path / name)
    losses = {name: read_metrics(tmp_path / name)[0]["train_loss"] for name in ("fp32", "bf16", "nchw")}
    assert losses["nchw"] == pytest.approx(losses["fp32"], rel=1e-3)
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_says_interrupted(tmp_path: Path, signum: int, code: int) -> None:
    words = ("train", *SMALL, "trainer.epochs=10000", "hydra.run.dir=run")
    with forked.begun(words, cwd=tmp_path) as running:
        while not (tmp_path / "run" / LAST).exists():
            assert running.process.is_alive(), running.err.read_text()
            time.sleep(0.02)
        running.send(signum)
        ended, _, errors = running.end(10)
    assert ended == code, errors
    assert "Traceback" not in errors
    result = read_result(tmp_path / "run")
    assert result.status == "interrupted"
    assert load_checkpoint(tmp_path / "run" / LAST)["history"]["epochs_run"] == result.epochs_run


def test_signals_go_back_to_their_owners() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRun), stop_on_signals() as flag:  # noqa: PT012
        assert signal.getsignal(signal.SIGTERM) is not before
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.signum == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a second signal ends the process
    assert signal.getsignal(signal.SIGTERM) is before
    assert InterruptedRun(signal.SIGTERM).exit_code == 143


def test_the_saved_config_is_plain_yaml(tmp_path: Path) -> None:
    run(compose(*SMALL, "trainer.epochs=1"), tmp_path / "run")
    tree = yaml.safe_load((tmp_path / "run" / CONFIG).read_text())
    assert tree["model"]["filters"] == 4
    assert tree["data"]["source"] == "synthetic"


ONE_BY_ONE = ("data=synthetic", "data.classes=3", "data.images_per_class=7", "data.image_size=32", "model=resnet18",
              "model.weights=none", "trainer.epochs=1", "trainer.threads=1")  # fmt: skip


def test_batch_norm_of_one_image_and_a_map_of_one_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer.batch_size=1: batch norm .* layer4.* use trainer.batch_size>=2"):
        run(compose(*ONE_BY_ONE, "trainer.batch_size=1"), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    frozen = run(compose(*ONE_BY_ONE, "trainer.batch_size=1", "model.freeze_depth=5"), tmp_path / "frozen")
    assert frozen.status == "completed", "a frozen batch norm uses its running statistics"


def test_a_last_batch_of_one_image_joins_the_one_before(tmp_path: Path) -> None:
    cfg = compose(*ONE_BY_ONE, "trainer.batch_size=5")  # 16 images: 5, 5, 6
    assert run(cfg, tmp_path / "run").status == "completed"
