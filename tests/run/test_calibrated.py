"""calibration.json of a run, and predict and export with --tta and --calibrated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from da6401.data.images import read_image
from da6401.metrics.calibration import calibrate, calibration_of, read_calibration
from da6401.report.run_record import read_run
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import CALIBRATION, TEST_CSV, VALIDATION_CSV, read_result
from da6401.training.trained_model import load_model
from tests.tiny_runs import SMALL, typed

HARD = (*SMALL, "data.classes=6", "data.images_per_class=15", "trainer.epochs=4", "optimizer.lr=0.02")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrated")
    code, _, err = typed("train", *HARD, "hydra.run.dir=run", cwd=folder)
    assert code == 0, err
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder / "run"


def probabilities(folder: Path, *flags: str) -> np.ndarray:
    code, out, err = typed("predict", "run", "0.png", "1.png", "2.png", "--json", *flags, cwd=folder.parent)
    assert code == 0, err
    return np.array([list(json.loads(line)["probabilities"].values()) for line in out.splitlines()])


def test_a_run_keeps_its_temperature_and_evaluate_adds_test(trained: Path) -> None:
    kept = read_calibration(trained / CALIBRATION)
    assert kept == calibrate(read_predictions(trained / VALIDATION_CSV))
    assert kept.test is None
    assert kept.temperature != 1
    code, out, err = typed("evaluate", "run", cwd=trained.parent)
    assert code == 0, err
    tested = read_calibration(trained / CALIBRATION).test
    assert tested is not None
    assert f"calibration error on test {tested.ece_before:.4f}, {tested.ece_after:.4f} at temperature" in out
    answers = read_predictions(trained / TEST_CSV)
    assert tested.images == len(answers.names)
    assert read_result(trained).test_accuracy == float((answers.predicted == answers.labels_N).mean())  # as it is
    assert read_run(trained, predictions=True).temperature == kept.temperature


def test_predict_averages_mirror_images_and_divides_by_the_temperature(trained: Path) -> None:
    model, cfg, _ = load_model(trained)
    temperature = calibration_of(trained).temperature
    views, logits = [], []
    with torch.inference_mode():
        for number in range(3):
            pixels = read_image(trained.parent / f"{number}.png", size=cfg.data.image_size, resize="stretch")
            x = torch.from_numpy(pixels)[None].float().div_(255)
            views.append([model(x).softmax(1)[0].double(), model(x.flip(3)).softmax(1)[0].double()])
            logits.append(model(x)[0].double())
    plain = np.stack([pair[0].numpy() for pair in views])
    mean = np.stack([(pair[0] + pair[1]).numpy() / 2 for pair in views])
    assert not np.allclose(plain, mean, atol=1e-4)
    assert probabilities(trained) == pytest.approx(plain, abs=1e-6)
    assert probabilities(trained, "--tta") == pytest.approx(mean, abs=1e-6)
    tempered = np.stack([(each / temperature).softmax(0).numpy() for each in logits])
    assert probabilities(trained, "--calibrated") == pytest.approx(tempered, abs=1e-6)
    both = mean ** (1 / temperature)
    assert probabilities(trained, "--tta", "--calibrated") == pytest.approx(both / both.sum(1, keepdims=True), abs=1e-6)


@pytest.mark.integration
def test_the_exported_files_answer_so_too(trained: Path) -> None:
    import onnxruntime

    out = trained.parent / "out"
    code, _, err = typed("export", "run", "--tta", "--calibrated", "--out", "out", cwd=trained.parent)
    assert code == 0, err
    about = json.loads((out / "preprocess.json").read_text())
    assert (about["mirror_images"], about["temperature"]) == (True, calibration_of(trained).temperature)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    images = np.stack([read_image(trained.parent / f"{n}.png", size=16, resize="stretch") for n in range(3)]) / 255
    answered = session.run(["probabilities"], {"images": images.astype(np.float32)})[0]
    assert answered == pytest.approx(probabilities(trained, "--tta", "--calibrated"), abs=1e-5)


def test_without_answers_on_validation_nothing_can_be_calibrated(trained: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / CALIBRATION).unlink()
    (tmp_path / "run" / VALIDATION_CSV).unlink()
    code, _, err = typed("predict", "run", str(trained.parent / "0.png"), "--calibrated", cwd=tmp_path)
    assert code == 2
    assert "validation.csv: not found" in err
