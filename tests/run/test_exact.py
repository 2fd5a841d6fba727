"""The same config and seed give the same bits: in whatever experiment, alone or in a sweep, on a folder that moved."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from da6401.cli import main
from da6401.commands.reproduce import NOT_REPRODUCED, reproduce_run
from da6401.config.schema import AugmentationConfig
from da6401.data.batches import batches
from da6401.errors import InterruptedRun
from da6401.runs.atomic_files import write_yaml
from da6401.runs.run_folder import CONFIG, LAST, RECEIPT, RESULT, read_metrics, read_result
from da6401.training import validation
from da6401.training.loop import plan_epoch
from da6401.training.run import run
from da6401.training.signals import stop_on_signals
from tests.image_trees import image_tree
from tests.outcomes import epochs, outcome
from tests.run.test_resume import HARD
from tests.tiny_runs import SMALL, SMALL_BACKBONE, compose, typed

BACKBONE = (
    *SMALL_BACKBONE, "data.image_size=32", "data.images_per_class=5", "model=resnet18", "model.weights=none",
    "trainer.epochs=1", "optimizer=sgd",
)  # fmt: skip
EXPERIMENTS = {
    "Part A": SMALL,
    "regularised": (*SMALL, "augmentation=strong", "trainer.ema_decay=0.9", "trainer.label_smoothing=0.1",
                    "model.dropout=0.5"),
    "mixed": (*SMALL, "augmentation.cutmix=1.0", "augmentation.mixup=0.5", "optimizer=sgd", "trainer.clip_norm=0.5"),
    "residual": (*SMALL, "model.residual=true", "model.block_dropout=0.2", "trainer.class_weights=true",
                 "optimizer=nadam"),
    "unbalanced": (*SMALL, "trainer.sampler=balanced", "trainer.focal_gamma=2", "trainer.logit_adjustment=0.5",
                   "trainer.class_weights=true", "trainer.class_weights_by=effective", "trainer.metric=macro_f1",
                   "augmentation=standard"),
    "early stopping": (*SMALL, "trainer.epochs=20", "trainer.patience=2", "optimizer.lr=1e-7", "trainer.ema_decay=0.5"),
    "Part B, half frozen": (*BACKBONE, "model.freeze_depth=3", "trainer.ema_decay=0.9", "augmentation.mixup=0.4"),
    "Part B, only the head": (*BACKBONE, "model.freeze_depth=5", "augmentation=strong"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "changes", "end_alone"),
    [
        (SMALL, ("augmentation.crop_scale=0.5", "augmentation.mixup=0.5", "augmentation.flip=0.5"),
         ("augmentation.flip=0.5",)),
        ((*BACKBONE, "model.freeze_depth=5", "model.feature_cache=on", "model.feature_views=3", "trainer.epochs=2"),
         ("augmentation.rotate=20",), ()),
    ],
    ids=["images", "kept features"],
)  # fmt: skip
def test_the_plain_end_trains_on_images_with_flips_alone(
    tmp_path: Path, words: tuple[str, ...], changes: tuple[str, ...], end_alone: tuple[str, ...]
) -> None:
    def weights(*more: str) -> str | None:
        return run(compose(*words, *more), tmp_path / "-".join(more)).weights_sha256

    plain = weights("augmentation=none", *end_alone)
    assert weights(*changes, "augmentation.plain_end=1") == plain
    assert plain != weights(*changes, "augmentation.plain_end=0.5") != weights(*changes)


@pytest.mark.parametrize(
    ("epochs", "share", "plain"), [(15, 0.2, 3), (2, 0.2, 0), (3, 0.2, 1), (4, 0.0, 0), (4, 1.0, 4)]
)
def test_the_plain_end_is_a_share_of_the_epochs(epochs: int, share: float, plain: int) -> None:
    cfg = compose(*SMALL, "augmentation=strong", f"augmentation.plain_end={share}", f"trainer.epochs={epochs}")
    changed = [plan_epoch(cfg, epoch).augmentation == cfg.augmentation for epoch in range(1, epochs + 1)]
    assert changed == [True] * (epochs - plain) + [False] * plain
    if plain:
        assert plan_epoch(cfg, epochs).augmentation == AugmentationConfig(flip=cfg.augmentation.flip)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_gives_the_same_bits_whatever_ran_before(tmp_path: Path, name: str) -> None:
    cfg = compose(*EXPERIMENTS[name])
    first = run(cfg, tmp_path / "a")
    torch.rand(5)  # someone else's draw
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)
    run(compose(*SMALL, "seed=9", "trainer.epochs=1", "augmentation=strong"), tmp_path / "other")
    run(cfg, tmp_path / "b")
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b") != outcome(tmp_path / "other")
    assert None not in (first.weights_sha256, first.best_weights_sha256)
    assert epochs(tmp_path / "a") != []


def test_a_trial_of_a_sweep_has_the_bits_of_the_run_alone(tmp_path: Path) -> None:
    fixed = (*SMALL, "trainer.epochs=2", "augmentation.mixup=0.4", "model.dropout=0.3", "trainer.patience=5")
    code, _, errors = typed(
        "train", "--multirun", *fixed, "study=s", "seed=choice(3,4)", "hydra.sweeper.n_trials=2",
        "hydra/sweeper/sampler=grid", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, errors
    for number in (0, 1):
        trial = tmp_path / "outputs" / "sweeps" / "s" / f"trial-{number}"
        seed = json.loads((trial / RECEIPT).read_text())["seed"]
        alone = run(compose(*fixed, f"seed={seed}"), tmp_path / f"alone-{number}")
        assert alone.weights_sha256 == read_result(trial).weights_sha256


# ---- stopped by a signal ----------------------------------------------------------------------------------------


def test_a_run_stopped_in_its_validation_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(compose(*HARD), tmp_path / "whole")

    def stopped(images: Any, **settings: Any) -> Any:
        for number, batch in enumerate(batches(images, **settings)):
            if stopped.left == 0:  # type: ignore[attr-defined]
                os.kill(os.getpid(), signal.SIGTERM)
            stopped.left -= 1  # type: ignore[attr-defined]
            yield batch
            assert number < 100

    for left in (0, 2):
        stopped.left = left  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(validation, "batches", stopped)
            with pytest.raises(InterruptedRun):
                run(compose(*HARD), tmp_path / "run")
    run(compose(*HARD), tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_what_hangs_after_a_signal_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("da6401.training.signals.GRACE", 0.2)
    started = time.monotonic()

    def hang() -> None:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)

    with pytest.raises(InterruptedRun):
        hang()
    assert time.monotonic() - started < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    script = (
        "import time; from da6401.training.signals import stop_on_signals\n"
        "with stop_on_signals():\n    print('ready', flush=True)\n    while True: time.sleep(0.05)"
    )
    words = [sys.executable, "-c", script]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(2) == -signal.SIGTERM
    process.stdout.close()


# ---- run again --------------------------------------------------------------------------------------------------


def test_a_folder_moved_with_its_data_is_reproduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_tree(tmp_path / "here", side=20)
    net = [text for text in SMALL if text.startswith(("model.", "trainer."))]
    cfg = compose("data=folder", f"data.root={tmp_path / 'here'}", "data.image_size=16", *net)
    run(cfg, tmp_path / "run")
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(tmp_path / "run", moved)
    shutil.move(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(moved / "checkpoints")
    assert reproduce_run(moved, [f"data.root={tmp_path / 'there'}"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"weights, last .*agrees", out)
    assert re.search(r"data fingerprint .*agrees", out)
    assert re.search(r"config data\.root .*DIFFERS", out)
    assert "identical metrics in all 2 epochs" in out
    (tmp_path / "there" / "train" / "cat" / "0.png").write_bytes(
        (tmp_path / "there" / "train" / "dog" / "1.png").read_bytes()
    )
    assert reproduce_run(moved, [f"data.root={tmp_path / 'there'}"]) == NOT_REPRODUCED
    out = capsys.readouterr().out
    assert "likely cause: data fingerprint" in out
    assert re.search(r"data fingerprint .*DIFFERS", out)


def test_an_unfinished_run_is_compared_as_far_as_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(compose(*SMALL, "trainer.epochs=3"), tmp_path / "run")
    (tmp_path / "run" / RESULT).unlink()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines[:2]))
    assert reproduce_run(tmp_path / "run", []) == 0
    assert "its 2 finished epochs are compared" in capsys.readouterr().out


def test_compare_shows_keys_metrics_and_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(compose(*SMALL), tmp_path / "a")
    run(compose(*SMALL, "trainer.epochs=3", "optimizer.lr=0.02"), tmp_path / "b")
    write_yaml(tmp_path / "c" / CONFIG, {"seed": 0, "study": "\x1b[31mred"})
    assert main(["compare", *(str(tmp_path / name) for name in "abc")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert re.search(r"optimizer\.lr +0\.001 +0\.02 +-", out)
    assert re.search(r"epochs_run +2 +3 +-", out)
    assert re.search(r"status +completed +completed +unfinished", out)
    last = read_metrics(tmp_path / "b")[-1]["val_loss"]
    assert f"{last:.4f}" in out
    assert len(re.findall(r"^ *B +3 +[▁▂▃▄▅▆▇█]{3} ", out, re.MULTILINE)) == 4
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "copy")]) == 0
    assert "no key differs" in capsys.readouterr().out
    (tmp_path / "other").symlink_to(tmp_path / "a")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "other")]) == 2
    assert "compare: names 1 and 3 are the same run" in capsys.readouterr().err


def test_compare_says_how_often_the_test_split_was_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        run(compose(*SMALL, "trainer.epochs=1"), tmp_path / name)
    assert main(["evaluate", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"test_looks +1 +0 *\n", out)
    assert "honest" not in out
    assert main(["explain", str(tmp_path / "b"), "--split", "test"]) == 0
    assert main(["evaluate", str(tmp_path / "b")]) == 0
    assert "has been looked at once for other runs on the same data" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"test_looks +1 +2 *\n", out)
    assert f"looked at 3 times for these runs ({tmp_path.name}/a, {tmp_path.name}/b)" in out
    assert "no longer an honest estimate" in out


def test_compare_needs_no_torch(tmp_path: Path) -> None:
    run(compose(*SMALL, "trainer.epochs=1"), tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    script = "import sys; from da6401.cli import main; main(['compare', 'a', 'b']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)


def test_resume_never_goes_to_a_new_folder(tmp_path: Path) -> None:
    words = ("train", *SMALL, "trainer.epochs=1", "hydra.run.dir=run", "trainer.resume=never")
    for _ in range(3):
        code, out, errors = typed(*words, cwd=tmp_path)
        assert code == 0, errors
    assert "run holds a run already, and trainer.resume=never: this one goes to run-3" in out
    for name in ("run", "run-2", "run-3"):
        assert read_result(tmp_path / name).status == "completed"
        assert (tmp_path / name / "train.log").read_text().count("validation accuracy") == 1
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert typed(*words[:-1], cwd=tmp_path)[0] == 2
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert (tmp_path / "run" / LAST).exists()
