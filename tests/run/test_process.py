"""What a run takes from the process that it runs in, and that it leaves that process as it was."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import da6401
from da6401 import Run
from da6401.cli import main
from da6401.commands.evaluate import answers_of
from da6401.config.compose import saved_config
from da6401.data.sources import load_training_data
from da6401.errors import ConfigError, DivergedError
from da6401.models.counts import Counts
from da6401.models.stages import StagedModel
from da6401.registry import OPTIMIZERS
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import CONFIG, RECEIPT, VALIDATION_CSV, read_result
from da6401.sweep.trial import latency_ms
from da6401.training import device, receipt
from da6401.training.arithmetic import Arithmetic
from da6401.training.run import run
from da6401.training.setup import load_images
from da6401.training.trained_model import load_model
from da6401.training.validation import evaluate
from tests import forked
from tests.tiny_runs import DIVERGING, SMALL, compose

# ---- what is imported -------------------------------------------------------------------------------------------


def _train_with_each_optimizer(folder: Path) -> None:
    for name in OPTIMIZERS:
        assert main(["train", *SMALL, "trainer.epochs=1", f"optimizer={name}", f"hydra.run.dir={folder / name}"]) == 0
    assert "torch._dynamo" not in sys.modules


def test_a_small_training_does_not_wait_for_the_import_of_the_compiler(tmp_path: Path) -> None:
    process = forked.start(_train_with_each_optimizer, tmp_path)
    process.join(120)
    assert process.exitcode == 0


# ---- the code that was loaded -----------------------------------------------------------------------------------


@pytest.fixture
def _fresh_process() -> Iterator[None]:
    receipt.program.cache_clear()
    yield
    receipt.program.cache_clear()


def git(checkout: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *words], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.usefixtures("_fresh_process")
def test_a_commit_made_during_a_sweep_is_in_no_trials_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "da6401").mkdir(parents=True)
    code = checkout / "da6401" / "model.py"
    code.write_text("WIDTH = 1\n")
    git(checkout, "init", "-q")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "first")
    loaded = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setattr(receipt, "CHECKOUT", checkout)
    versions = itertools.count()

    def committed_meanwhile(*values: Any) -> Any:
        code.write_text(f"WIDTH = {next(versions)}\nDEPTH = 1\n")
        git(checkout, "commit", "-qam", "while the data is loaded")
        code.write_text("WIDTH = 0\n")  # and dirty
        return load_images(*values)

    monkeypatch.setattr("da6401.training.run.load_images", committed_meanwhile)
    da6401.train(
        *SMALL, "trainer.epochs=1", "study=s", "seed=choice(1,2)", "hydra.sweeper.n_trials=2", multirun=True,
        out=tmp_path / "sweep",
    )  # fmt: skip
    receipts = [json.loads((tmp_path / "sweep" / f"trial-{number}" / RECEIPT).read_text()) for number in (0, 1)]
    assert [(receipt["git_commit"], receipt["git_dirty"]) for receipt in receipts] == [(loaded, None)] * 2
    assert git(checkout, "rev-parse", "HEAD") != loaded


# ---- torch's switches -------------------------------------------------------------------------------------------

# How a notebook may have set each of device.SWITCHES, otherwise than torch starts and than a run asks for.
OWN: list[Callable[[], object]] = [
    lambda: torch.set_num_threads(3),
    lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", True),
    lambda: setattr(torch.backends.cudnn, "benchmark", True),
    lambda: setattr(torch.backends.cudnn, "deterministic", True),
    lambda: torch.set_default_dtype(torch.float64),
    lambda: torch.set_float32_matmul_precision("medium"),
    lambda: torch.manual_seed(77),
]


def switches() -> dict[str, Any]:
    """What a notebook can see of torch's global state."""
    import torch._inductor.config as compiler

    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "compiler": compiler.deterministic,
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "benchmark": torch.backends.cudnn.benchmark,
        "cudnn": torch.backends.cudnn.deterministic,
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "random": torch.get_rng_state().tolist(),
        "cublas": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "hydra": os.environ.get("HYDRA_FULL_ERROR"),
        "arguments": list(sys.argv),
        "signals": [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
    }


@pytest.fixture(params=["as torch starts", "a notebook's own"])
def _notebook(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with device.restore_torch_settings():
        if request.param == "a notebook's own":
            monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
            for switch in OWN:
                switch()
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose process asked for nothing."""
    return da6401.train(*SMALL, out=tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.usefixtures("_notebook")
def test_a_training_leaves_torch_as_it_was_and_is_not_moved_by_it(tmp_path: Path, plain: Run) -> None:
    before = switches()
    trained = da6401.train(*SMALL, out=tmp_path / "run")
    assert switches() == before
    assert read_result(trained.folder).weights_sha256 == read_result(plain.folder).weights_sha256
    assert main(["evaluate", str(trained.folder)]) == 0
    assert switches() == before
    with pytest.raises(DivergedError):
        da6401.train(*DIVERGING, out=tmp_path / "diverged")
    da6401.train(*SMALL, "trainer.epochs=1", "seed=choice(1,2)", "hydra.sweeper.n_trials=2", multirun=True,
                 out=tmp_path / "sweep")  # fmt: skip
    assert switches() == before


def test_a_latency_is_measured_with_the_trainings_threads(
    tmp_path: Path, plain: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, threads = StagedModel.forward, set[int]()

    def watched(self: StagedModel, x: torch.Tensor, first: int = 0) -> torch.Tensor:
        threads.add(torch.get_num_threads())
        return original(self, x, first)

    monkeypatch.setattr(StagedModel, "forward", watched)
    with device.restore_torch_settings():
        torch.set_num_threads(3)
        before = switches()
        assert latency_ms(plain.folder) > 0
        assert switches() == before
    assert threads == {1}  # trainer.threads=1


def test_every_switch_is_among_those_that_a_notebook_sets() -> None:
    with device.restore_torch_settings():
        device.prepare(seed=0, threads=1, deterministic=True)
        unset = [read() for read, _ in device.SWITCHES]
        for switch in OWN:
            switch()
        assert not [read for (read, _), value in zip(device.SWITCHES, unset, strict=True) if _same(read(), value)]


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def test_the_second_interface_of_the_precision_is_kept_too() -> None:
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has one interface")
    with device.restore_torch_settings():
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        with device.restore_torch_settings():
            device.prepare(seed=0, threads=1, deterministic=True)
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        torch.set_float32_matmul_precision("highest")


def test_what_cannot_be_deterministic_is_refused_before_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = StagedModel.forward

    def scattered(self: StagedModel, x: torch.Tensor, first: int = 0) -> torch.Tensor:
        torch.zeros(2).put_(torch.tensor([0]), torch.tensor([1.0]))  # refused on a CPU, too
        return original(self, x, first)

    monkeypatch.setattr(StagedModel, "forward", scattered)
    monkeypatch.setattr("da6401.training.setup.count", lambda *values: Counts([], []))
    with pytest.raises(ConfigError, match=r"put_ has no deterministic form .*trainer\.deterministic=false"):
        run(compose(*SMALL), tmp_path / "run")
    result = read_result(tmp_path / "run")
    assert (result.status, result.epochs_run) == ("failed", 0)
    assert "Traceback" not in result.reason
    assert run(compose(*SMALL, "trainer.deterministic=false"), tmp_path / "other").status == "completed"


# ---- the precision that was trained with ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["true", "false"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluate_computes_as_the_training_did(tmp_path: Path, precision: str, layout: str) -> None:
    own = ("model.dropout=0.2", f"trainer.precision={precision}", f"trainer.channels_last={layout}")
    run(compose(*SMALL, *own), tmp_path / "run")
    model, cfg, class_names = load_model(tmp_path / "run")
    validation = load_training_data(cfg.data).validation
    with device.restore_torch_settings():
        device.prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=True)
        answer = answers_of(model, validation, cfg, torch.device("cpu"))
        other = evaluate(model, validation, Arithmetic(torch.device("cpu")), batch_size=8)
    kept = read_predictions(tmp_path / "run" / VALIDATION_CSV)
    assert kept.class_names == tuple(class_names)
    assert np.array_equal(kept.probabilities_NK, answer.probabilities_NK.numpy())
    assert answer.loss == read_result(tmp_path / "run").val_loss
    if precision == "bf16":
        assert not torch.equal(answer.probabilities_NK, other.probabilities_NK), "fp32 would be another answer"


def test_what_was_trained_in_fp16_is_evaluated_without_cuda(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(compose(*SMALL), tmp_path / "run")
    model, cfg, _ = load_model(tmp_path / "run")
    half = dataclasses.replace(cfg, trainer=dataclasses.replace(cfg.trainer, precision="fp16"))
    validation = load_training_data(cfg.data).validation
    answers = [answers_of(model, validation, each, torch.device("cpu")) for each in (cfg, half)]
    assert torch.equal(answers[0].probabilities_NK, answers[1].probabilities_NK)
    assert "trained in fp16" in caplog.text


def test_reproduce_trains_in_the_same_precision_and_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = compose(*SMALL, "trainer.precision=bf16", "trainer.channels_last=false")
    run(cfg, tmp_path / "run")
    assert main(["reproduce", str(tmp_path / "run")]) == 0
    assert "identical metrics" in capsys.readouterr().out
    (again,) = tmp_path.glob("run-again-*")
    assert read_result(again).weights_sha256 == read_result(tmp_path / "run").weights_sha256
    assert saved_config(again / CONFIG) == cfg
