"""`da6401 explain` on finished runs: the pictures, and what about.json says of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from da6401.cli import main
from da6401.commands import evaluate
from da6401.commands.explain.drawing import Example, embedding_plot, label, own_style, prediction_grid, save
from da6401.commands.explain.views import Answers, Picture, choose, views
from da6401.config.schema import Activation
from da6401.data.image_sets import ImageSet
from da6401.models.pretrained import ClassToken, PatchTokens
from da6401.models.stages import StagedModel
from da6401.runs.looks import read_looks
from da6401.runs.run_folder import read_result
from da6401.training.run import run
from tests.image_trees import image_tree
from tests.networks import cnn
from tests.tiny_runs import SMALL, SMALL_BACKBONE, compose

NO_DENSE_LAYER: dict[str, Any] = {"global_pool": True, "dense_width": 0}
FILES = ["predictions.png", "confusion.png", "filters.png", "feature_maps.png", "guided.png", "gradcam.png"]
HOSTILE = ("$x_1^2$ \\frac{", "<script>alert(1)</script>", "_hidden")


def about(run_folder: Path) -> dict[str, dict[str, str]]:
    entries = json.loads((run_folder / "explain" / "about.json").read_text(encoding="utf-8"))
    return {entry["file"]: entry for entry in entries}


def words_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain") / "run"
    run(compose(*SMALL), folder)
    return folder


def test_all_pictures_of_a_cnn(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(finished), "--split", "test"]) == 0
    entries = about(finished)
    assert list(entries) == [*FILES, "embedding.png"]
    assert {path.name for path in (finished / "explain").iterdir()} == {*entries, "about.json"}
    for file, entry in entries.items():
        assert set(entry) == {"file", "title", "caption"}
        with Image.open(finished / "explain" / file) as picture:
            assert min(picture.size) > 200, file
            assert np.asarray(picture.convert("RGB")).std() > 5, f"{file} is blank"
    out = capsys.readouterr().out
    assert all(file in out for file in entries)
    assert entries["guided.png"]["title"] == "Guided backpropagation"
    assert "9 images of the test split" in entries["predictions.png"]["caption"]

    assert main(["evaluate", str(finished)]) == 0
    accuracy = read_result(finished).test_accuracy
    assert accuracy is not None
    counted = f"All 9 images of the test split, {round(9 * accuracy)} of them right"
    assert entries["confusion.png"]["caption"].startswith(counted)
    assert [look.verb for look in read_looks(finished)] == ["explain", "evaluate"]


def test_without_a_word_it_is_the_validation_split(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_looks(finished)

    def never(*_: object) -> None:
        raise AssertionError("the test split was opened")

    monkeypatch.setattr(evaluate, "load_test_data", never)
    assert main(["explain", str(finished)]) == 0
    assert "6 images of the validation split" in about(finished)["predictions.png"]["caption"]
    assert read_looks(finished) == before


@pytest.mark.parametrize(
    ("counts", "classes", "each", "explained", "embedded"),
    [
        ([40] * 10, 10, 3, 10, 400),
        ([100] * 20, 10, 3, 10, 600),  # ten of the classes
        ([0, 20, 20], 2, 5, 10, 40),  # more images of each, until there are ten
        ([1, 30], 2, 5, 6, 31),  # a class with one image
    ],
)
def test_the_images_are_drawn_by_the_seed(
    counts: list[int], classes: int, each: int, explained: int, embedded: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    choice, again, other = (choose(labels, seed=seed) for seed in (1, 1, 2))
    assert (choice.classes, choice.rows, choice.explained) == (again.classes, again.rows, again.explained)
    assert np.array_equal(choice.embedded_P, again.embedded_P)
    assert choice.rows != other.rows
    assert len(choice.classes) == classes
    assert max(map(len, choice.rows)) == each
    assert len(set(choice.explained)) == explained
    assert len(set(choice.embedded_P.tolist())) == embedded
    for number, row in zip(choice.classes, choice.rows, strict=True):
        assert set(labels[row]) == {number}


def test_a_frozen_googlenet_at_its_smallest_size(tmp_path: Path) -> None:
    overrides = ("model=googlenet", "model.weights=none", "model.freeze_depth=12", "data.image_size=15")
    words = [text for text in SMALL_BACKBONE if not text.startswith("data.image_size")]
    run(compose(*words, *overrides, "trainer.epochs=1"), tmp_path / "run")
    assert main(["explain", str(tmp_path / "run")]) == 0
    entries = about(tmp_path / "run")
    assert list(entries)[:6] == FILES
    assert entries["guided.png"]["title"] == "Guided backpropagation"
    assert "5b.0 (1024 channels of 1 x 1)" in entries["guided.png"]["caption"]


def test_without_a_test_split_validation_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"{number}.png" for number in range(6)]
    image_tree(tmp_path / "tree", classes=("$a_1$ $", "<b>", "\\frac{"), names=files, splits=("train",), side=16)
    data = ("data=folder", f"data.root='{tmp_path / 'tree'}'", "data.image_size=16", "data.val_fraction=0.5")
    words = [text for text in SMALL if not text.startswith("data")]
    run(compose(*words, *data, "trainer.epochs=1"), tmp_path / "run")
    assert main(["explain", str(tmp_path / "run"), "--split", "test"]) == 2
    assert "no test split" in capsys.readouterr().err
    assert not (tmp_path / "run" / "explain").exists()
    assert read_looks(tmp_path / "run") == [], "nobody has seen anything"
    assert main(["explain", str(tmp_path / "run")]) == 0
    assert "9 images of the validation split" in about(tmp_path / "run")["confusion.png"]["caption"]


def test_the_pictures_stay_within_the_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    for name in ("config.yaml", "checkpoints"):
        (run_folder / name).symlink_to(finished / name)
    (run_folder / "explain").symlink_to(elsewhere)
    assert main(["explain", str(run_folder)]) == 2
    assert "symbolic link" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


def answers(size: int, *, class_names: Sequence[str] = ("a", "b", "c"), features: float = 1.0) -> Answers:
    """Twelve random images; the model is right on those of even number."""
    pixels = torch.randint(0, 256, (12, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = np.arange(12, dtype=np.int64) // 4
    return Answers(
        images=ImageSet(pixels, torch.from_numpy(labels), tuple(map(str, range(12)))),
        class_names=class_names,
        labels_N=labels,
        predicted_N=(labels + np.arange(12) % 2) % 3,
        confidence_N=np.full(12, 0.5, dtype=np.float32),
        choice=choose(labels, seed=0),
        features_PE=np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32) * features,
    )


def seen(model: StagedModel, shown: Answers, folder: Path, *files: str) -> dict[str, Picture]:
    """All pictures that there would be, some of them drawn."""
    model.eval().requires_grad_(False)
    found = {picture.file: picture for picture in views(model, shown, 0, "test")}
    with own_style():
        for file in files:
            save(found[file].draw(), folder / file)
    return found


@pytest.mark.parametrize("activation", ["mish", "leaky_relu"])
def test_guided_backpropagation_is_not_shown_where_it_is_undefined(activation: Activation, tmp_path: Path) -> None:
    model = cnn(image_size=(16, 16), filters=(4, 6), activation=activation, batch_norm=False, **NO_DENSE_LAYER)
    found = seen(model, answers(16), tmp_path, *(["guided.png"] if activation == "mish" else []))
    assert found["guided.png"].title.startswith("Gradient x input")
    assert f"{activation}, which are no rectifiers" in found["guided.png"].caption
    assert "undefined" in found["guided.png"].caption
    assert found["gradcam.png"].title == "Grad-CAM"


def test_a_transformer_has_no_last_convolution(tmp_path: Path) -> None:
    vit = VisionTransformer(image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16)
    stages = {"patches": PatchTokens(vit), "block1": vit.encoder.layers[0], "norm": ClassToken(vit.encoder.ln)}
    model = StagedModel(stages=stages, head=nn.Linear(16, 3), mean=(0.5,) * 3, std=(0.25,) * 3)
    found = seen(model, answers(32), tmp_path, "gradcam.png")
    assert "in place of guided" in found["guided.png"].title
    assert "in place of Grad-CAM" in found["gradcam.png"].title
    assert "no last convolution" in found["gradcam.png"].caption
    assert "each patch of 16 x 16 px" in found["gradcam.png"].caption


def test_features_that_are_all_equal_have_no_map(tmp_path: Path) -> None:
    one: dict[str, Any] = {"filters": (1,), "kernels": (1,), "convolutions": (1,)}
    model = cnn(image_size=(8, 8), **one, batch_norm=False, pooling="avg", **NO_DENSE_LAYER)
    assert list(seen(model, answers(8, features=0.0), tmp_path)) == FILES


def test_mistakes_are_marked_in_words_and_by_the_frame() -> None:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    wrong, right = Example(pixels, "cat", "dog", 0.93), Example(pixels, "cat", "cat", 0.5)
    with own_style():
        figure = prediction_grid([[wrong, right], [right]])
    words = words_of(figure)
    assert words.count("✗ MISTAKE") == 1
    assert words.count("✓ right") == 2
    assert {"is cat", "said dog", "confidence 93%"} <= set(words)
    frames = [axes.spines["top"].get_linewidth() for axes in figure.axes if axes.images]
    assert frames == [3.5, 1.0, 1.0]


def test_names_are_never_markup(tmp_path: Path) -> None:
    shown = answers(8, class_names=HOSTILE)
    with own_style():
        figure = prediction_grid([shown.examples(row) for row in shown.choice.rows])
        plot = embedding_plot(shown.features_PE[:, :2], shown.labels_N, shown.labels_N == 0, HOSTILE, [0, 1, 2])
        save(plot, tmp_path / "embedding.png")  # matplotlib would raise on half a formula
    assert {f"is {label(name)}" for name in HOSTILE} <= set(words_of(figure))
    assert {label(name) for name in HOSTILE} <= set(words_of(plot)), "the legend keeps a name with _ before it"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat", "cat"),
        ("two\nlines\tand \x1b[31mred", "two lines and \\x1b[…"),
        ("\u732b", "\\u732b"),
        ("bad \udcff", "bad \\udcff"),
        ("x" * 30, "x" * 19 + "…"),
    ],
)
def test_a_name_is_one_short_line_that_the_font_can_draw(name: str, shown: str) -> None:
    assert label(name) == shown
