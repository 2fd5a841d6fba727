"""The mean of networks that were trained with images of different sizes, as a race hands it over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from da6401.cli import main
from da6401.config.compose import saved_config
from da6401.data.sources import load_training_data
from da6401.models.ensemble import Ensemble, resized
from da6401.runs.atomic_files import write_json
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import AVERAGE, BEST, read_json, read_result
from da6401.study.objective import Objective
from da6401.sweep import hand_over as hand_over_module
from da6401.sweep.hand_over import hand_over, trained_runs
from da6401.sweep.model_folder import Option
from da6401.training.checkpoint import load_checkpoint
from da6401.training.trained_model import load_model, load_network
from tests.tiny_runs import SMALL, typed

LARGE, SMALLER = "trial-0", "trial-1"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks of different image sizes, a longer training of the first, and one of other images."""
    folder = tmp_path_factory.mktemp("s")
    averaged = ("data.image_size=24", "trainer.average_end=1")
    for number, words in enumerate((averaged, (), (*averaged, "trainer.epochs=1"), ("data.images_per_class=13",))):
        code, _, complained = typed("train", *SMALL, *words, f"hydra.run.dir={folder}/trial-{number}", cwd=folder)
        assert code == 0, complained
    return folder


@pytest.fixture(scope="module")
def mean(sweep: Path) -> Path:
    """`model`, as if the mean of all that may be in it were the best, with mirror images."""

    def last(options: list[Option], labels_N: object) -> Option:
        return options[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hand_over_module, "choose", last)
        cfg = saved_config(sweep / LARGE / "config.yaml")
        trained = {each.run.name: each for each in trained_runs([*sweep.glob("trial-*")], Objective.of(cfg.sweep))}
        handed = hand_over(sweep, [trained[f"trial-{number}"] for number in range(4)], members=3, seconds=1.0)
    assert [each["model"] for each in handed.tried][-1] == (
        "the mean of 2 networks, averaged weights in 1 of them, images and mirror images"
    )
    return sweep / "model"


def test_no_shorter_training_of_a_member_and_none_of_other_images_is_in_it(mean: Path) -> None:
    assert read_json(mean / "ensemble.json") == {
        "runs": [LARGE, SMALLER], "checkpoints": [AVERAGE, BEST], "flips": True,
    }  # fmt: skip


def test_each_member_sees_the_images_at_its_own_size(sweep: Path, mean: Path) -> None:
    images = load_training_data(saved_config(mean / "config.yaml").data).validation
    answers = []
    with torch.inference_mode():
        images_BCHW = images.images_NCHW[torch.arange(len(images.names))].float() / 255
        assert images_BCHW.shape[-1] == 24
        for run, side, checkpoint in ((LARGE, 24, AVERAGE), (SMALLER, 16, BEST)):
            network, _, _ = load_network(sweep / run, checkpoint)
            smaller_BCHW = torch.nn.functional.interpolate(
                images_BCHW, (side, side), mode="bilinear", antialias=side != 24
            )
            answers += [network(view).softmax(1) for view in (smaller_BCHW, smaller_BCHW.flip(3))]
        expected_NK = torch.stack(answers).mean(0)
        model, _, _ = load_model(mean)
        assert isinstance(model, Ensemble)
        torch.testing.assert_close(model(images_BCHW).softmax(1), expected_NK, atol=1e-5, rtol=0)
    written = read_predictions(mean / "validation.csv")
    np.testing.assert_allclose(written.probabilities_NK, expected_NK.numpy(), atol=1e-4)


def test_the_verbs_take_it(mean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(mean)]) == 0
    assert read_result(mean).test_accuracy is not None
    assert main(["export", str(mean)]) == 0, capsys.readouterr().err


def test_averaged_weights_that_show_no_gain_are_reported_and_not_taken(
    sweep: Path, mean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def first(options: list[Option], labels_N: object) -> Option:
        asked.append([option.words for option in options])
        return options[0]

    monkeypatch.setattr(hand_over_module, "choose", first)
    cfg = saved_config(sweep / LARGE / "config.yaml")
    trained = trained_runs([sweep / LARGE], Objective.of(cfg.sweep))
    handed = hand_over(sweep, trained, members=1, seconds=1.0)
    alone, averaged = "the best network", "the best network, averaged weights"
    assert asked == [[alone, averaged], [alone, f"{alone}, images and mirror images"]]
    assert [(each["model"], each["chosen"]) for each in handed.tried] == [
        (alone, True), (f"{alone}, images and mirror images", False), (averaged, False),
    ]  # fmt: skip
    accuracy = handed.tried[-1]["val_accuracy"]
    labels_N = load_training_data(cfg.data).validation.labels_N
    kept_NK = load_checkpoint(sweep / LARGE / AVERAGE)["probabilities"]
    assert accuracy == pytest.approx((kept_NK.argmax(1) == labels_N).float().mean().item())


def test_a_model_of_an_older_version_holds_the_best_epochs_weights(mean: Path, tmp_path: Path) -> None:
    old = mean.with_name("old")
    old.mkdir()
    for name in ("config.yaml", "result.json"):
        (old / name).write_bytes((mean / name).read_bytes())
    write_json(old / "ensemble.json", {"runs": [LARGE], "flips": False})
    model, _, _ = load_model(old)
    assert isinstance(model, Ensemble)
    best = load_network(mean.with_name(LARGE))[0].state_dict()
    for name, value in model.members[0].state_dict().items():
        assert torch.equal(value, best[name])


def test_images_of_the_right_size_stay_as_they_are() -> None:
    images_BCHW = torch.rand(2, 3, 8, 8)
    assert resized(images_BCHW, 8) is images_BCHW
    assert resized(images_BCHW, 12).shape == (2, 3, 12, 12)
