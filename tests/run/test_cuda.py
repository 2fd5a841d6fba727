"""What a CUDA device must keep: the same bits, resuming, reproducing, and the CPU's answers to a tolerance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from da6401.commands.evaluate import answers_of
from da6401.commands.reproduce import reproduce_run
from da6401.data.sources import load_training_data
from da6401.errors import DivergedError, InterruptedRun
from da6401.runs.run_folder import LAST, RECEIPT, read_metrics, read_result
from da6401.training import epoch_inputs
from da6401.training.checkpoint import load_checkpoint
from da6401.training.run import run
from da6401.training.trained_model import load_model
from tests.outcomes import outcome, stop_at
from tests.run.test_resume import HARD
from tests.tiny_runs import DIVERGING, SMALL, SMALL_BACKBONE, compose, typed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA: this machine has no GPU")
CUDA = ("device=cuda", "trainer.deterministic=true", "trainer.progress=false")
PRECISIONS = ("fp32", "bf16", "fp16")
BACKBONE = (
    *SMALL_BACKBONE, "data.image_size=64", "data.images_per_class=6", "model.weights=none", "trainer.epochs=1",
    "optimizer=sgd",
)  # fmt: skip
BACKBONES = (
    "resnet18", "resnet50", "googlenet", "vgg16", "inception_v3", "efficientnet_v2_s", "efficientnet_lite0",
    "mobilenet_v3_large", "convnext_tiny", "vit_b_16",
)  # fmt: skip
SIDES = {"inception_v3": 96, "vit_b_16": 224}


@pytest.fixture(autouse=True)
def an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DA6401_CACHE_DIR", str(tmp_path / "cache"))
    yield
    torch.cuda.empty_cache()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_part_a_gives_the_same_bits_twice(tmp_path: Path, precision: str) -> None:
    cfg = compose(*SMALL, *CUDA, f"trainer.precision={precision}", "augmentation=strong")
    first, second = run(cfg, tmp_path / "a"), run(cfg, tmp_path / "b")
    assert first.weights_sha256 == second.weights_sha256 is not None
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


@pytest.mark.parametrize("name", BACKBONES)
def test_each_backbone_trains_and_resumes_to_the_same_bits(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose(*BACKBONE, *CUDA, f"model={name}", f"data.image_size={SIDES.get(name, 64)}")
    whole = run(cfg, tmp_path / "a")
    with monkeypatch.context() as patch:
        stop_at(1, patch)
        with pytest.raises(InterruptedRun):
            run(cfg, tmp_path / "b")
    assert run(cfg, tmp_path / "b").weights_sha256 == whole.weights_sha256 is not None


@pytest.mark.parametrize("batch", [1, 7, 11])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_stopped_run_goes_on_bit_for_bit(
    tmp_path: Path, batch: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose(*HARD, *CUDA, f"trainer.precision={precision}")
    run(cfg, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(batch, patch)
        with pytest.raises(InterruptedRun):
            run(cfg, tmp_path / "run")
    torch.rand(3, device="cuda")
    run(cfg, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_run_is_reproduced(tmp_path: Path) -> None:
    run(compose(*SMALL, *CUDA, "trainer.precision=bf16", "augmentation=standard"), tmp_path / "run")
    assert reproduce_run(tmp_path / "run", []) == 0


def test_the_answers_are_the_cpus_to_a_tolerance(tmp_path: Path) -> None:
    run(compose(*SMALL, *CUDA), tmp_path / "run")
    answers = {}
    for device in ("cpu", "cuda"):
        model, cfg, _ = load_model(tmp_path / "run")
        data = load_training_data(cfg.data)
        answers[device] = answers_of(model, data.validation, cfg, torch.device(device))
    torch.testing.assert_close(
        answers["cuda"].probabilities_NK, answers["cpu"].probabilities_NK, rtol=5e-3, atol=5e-3
    )  # cuDNN's convolutions use TF32
    assert answers["cuda"].loss == pytest.approx(answers["cpu"].loss, abs=1e-2)


def test_evaluate_works_on_cuda(tmp_path: Path) -> None:
    run(compose(*SMALL, *CUDA), tmp_path / "run")
    code, out, err = typed("evaluate", str(tmp_path / "run"), cwd=tmp_path)
    assert code == 0, err
    assert "test accuracy" in out


@pytest.mark.parametrize("words", [SMALL, (*BACKBONE, "model=resnet18", "model.freeze_depth=5", "trainer.epochs=3")])
def test_rows_on_the_device_and_from_the_host_give_the_same_bits(
    tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose(*words, *CUDA, *(("model.feature_cache=on",) if "model=resnet18" in words else ()))
    run(cfg, tmp_path / "resident")
    if "model=resnet18" in words:
        (facts,) = json.loads((tmp_path / "resident" / RECEIPT).read_text())["features"]
        assert facts["on"]
    monkeypatch.setattr(epoch_inputs, "room_on", lambda device: 0)
    run(cfg, tmp_path / "host")
    monkeypatch.setattr(epoch_inputs, "IN_MEMORY", 0)
    run(cfg, tmp_path / "disk")
    assert outcome(tmp_path / "resident") == outcome(tmp_path / "host") == outcome(tmp_path / "disk")


def test_a_divergence_is_noticed_though_losses_are_read_late(tmp_path: Path) -> None:
    cfg = compose(*DIVERGING, *CUDA)
    with pytest.raises(DivergedError, match=r"loss is -?(nan|inf) in epoch \d+"):
        run(cfg, tmp_path / "run")
    result = read_result(tmp_path / "run")
    assert result.status == "diverged"
    if result.epochs_run:
        state = load_checkpoint(tmp_path / "run" / LAST)["model"]
        assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_a_network_that_does_not_fit_says_that_memory_is_out(tmp_path: Path) -> None:
    torch.cuda.empty_cache()
    taken = torch.cuda.memory_reserved()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((taken + 64e6) / total)
    try:
        code, _, err = typed(
            "train", *SMALL, *CUDA, "model.dense_width=2048", "data.image_size=64", "model.filters=64",
            f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path,
        )  # fmt: skip
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert code == 2
    assert "out of memory" in err


def test_trials_that_share_a_gpu_are_those_alone(tmp_path: Path) -> None:
    words = (*SMALL, *CUDA, "augmentation=strong", "trainer.epochs=2")
    folder = tmp_path / "sweep"
    code, _, err = typed(
        "train", "--multirun", *words, "optimizer.lr=interval(1e-4,1e-2)", "hydra.sweeper.n_trials=6",
        "hydra.sweeper.n_jobs=3", "hydra/sweeper/sampler=random", f"hydra.sweep.dir={folder}", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    for number in range(6):
        assert reproduce_run(folder / f"trial-{number}", []) == 0


def test_two_processes_on_one_gpu_reach_the_numbers_of_one(tmp_path: Path) -> None:
    words = (*SMALL, *CUDA, "device=cuda:0", "augmentation=standard", "trainer.batch_size=8", "trainer.ema_decay=0.9")
    alone = run(compose(*words), tmp_path / "alone")
    both = run(compose(*words, "trainer.devices=2"), tmp_path / "both")
    again = run(compose(*words, "trainer.devices=2"), tmp_path / "again")
    assert both.weights_sha256 == again.weights_sha256 is not None
    # Batch norm sees the whole batch; cuDNN's convolutions use TF32, and their rounding depends on the size.
    assert both.val_loss == pytest.approx(alone.val_loss, rel=2e-2)
    first, second = (read_metrics(tmp_path / name)[0] for name in ("alone", "both"))
    assert first["train_loss"] == pytest.approx(second["train_loss"], rel=2e-2)


def test_a_batch_that_does_not_fit_is_computed_in_parts(tmp_path: Path) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    words = (*SMALL, *CUDA, "data.image_size=64", "model.filters=64", "data.images_per_class=60", "trainer.epochs=1",
             "trainer.batch_size=128")  # fmt: skip
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 500e6) / total)
    try:
        result = run(compose(*words), tmp_path / "run")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.status == "completed"
    assert result.batch_parts > 1
