"""da6401 export: files that answer as PyTorch does, say how they are fed, and are whole or not there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import VisionTransformer

from da6401 import export
from da6401.cli import main
from da6401.config.schema import PretrainedConfig
from da6401.errors import ModelError
from da6401.export import Deployed, export_model
from da6401.models.build import build_model
from da6401.models.pretrained import ClassToken, PatchTokens
from da6401.models.stages import StagedModel
from da6401.run import run
from tests.small import SMALL, compose, da6401

# A stranger's program: numpy, Pillow and onnxruntime alone; the file itself says how it is fed.
STANDALONE = """
import json, sys
import numpy as np, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
size, image = int(about["image_size"]), Image.open(sys.argv[2]).convert("RGB")
assert about["input"] == "RGB, 0..1" and about["resize"] in ("stretch", "crop")
if about["resize"] == "crop":
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 255
logits, probabilities = session.run(["logits", "probabilities"], {"images": pixels.transpose(2, 0, 1)[None]})
assert "torch" not in sys.modules
print(json.dumps([json.loads(about["class_names"])[int(logits[0].argmax())], float(probabilities[0].max())]))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on photographs' way of reading (a folder, cropped), with a class name that is no ASCII."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        for name, colour in (('røde, "x"', (200, 40, 30)), ("green", (30, 180, 60)), ("blue", (20, 60, 220))):
            (root / split / name).mkdir(parents=True)
            for number in range(8):
                noise = rng.normal(0, 40, (24, 36, 3)) + colour
                Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / split / name / f"{number}.png")
    folder = tmp_path_factory.mktemp("export") / "run"
    own = [text for text in SMALL if not text.startswith("data")]
    words = ("data=folder", f"data.root={root}", "data.image_size=16", "data.resize=crop", "trainer.epochs=4")
    run(compose(*own, *words), folder)
    return folder


@pytest.fixture(scope="module")
def told(finished: Path) -> subprocess.CompletedProcess[str]:
    """What the verb says; the files are in RUN/export."""
    return da6401("export", str(finished), cwd=finished.parent)


@pytest.fixture(scope="module")
def exported(finished: Path, told: subprocess.CompletedProcess[str]) -> Path:
    assert told.returncode == 0, told.stderr
    return finished / "export"


def test_a_stranger_gets_the_same_class(
    finished: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, colour in enumerate([(210, 30, 30), (40, 160, 50), (90, 90, 190)]):
        path = tmp_path / f"{number}.png"
        rng = np.random.default_rng(number)
        pixels = (rng.normal(0, 40, (30, 41, 3)) + colour).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        words = [sys.executable, "-c", STANDALONE, str(exported / "model.onnx"), str(path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        class_name, probability = json.loads(done.stdout)
        assert main(["predict", str(finished), str(path), "--json"]) == 0
        ours = json.loads(capsys.readouterr().out)
        assert class_name == ours["class"]
        assert probability == pytest.approx(ours["probability"], abs=2e-3)  # Pillow and torch round a pixel apart


def test_both_files_say_what_the_json_says(exported: Path) -> None:
    import onnxruntime

    about = json.loads((exported / "model.json").read_text(encoding="utf-8"))
    assert about["class_names"] == ["blue", "green", 'røde, "x"']
    assert (about["image_size"], about["resize"], about["input"]) == (16, "crop", "RGB, 0..1")
    extra = {"model.json": ""}
    torch.export.load(exported / "model.pt2", extra_files=extra)
    assert json.loads(extra["model.json"]) == about
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert {
        key: value if isinstance(about[key], str) else json.loads(value) for key, value in metadata.items()
    } == about
    assert session.get_inputs()[0].shape == ["batch", 3, 16, 16]
    content = (exported / "model.onnx").read_bytes() + (exported / "model.pt2").read_bytes()
    assert str(Path(export.__file__).parent).encode() not in content, "a path of this machine"


def test_the_verb_prints_the_differences_and_nothing_of_the_exporters(
    told: subprocess.CompletedProcess[str], exported: Path
) -> None:
    assert told.stderr == ""
    onnx, pt2, about = told.stdout.splitlines()
    assert "model.onnx" in onnx
    assert "model.pt2" in pt2
    assert float(onnx.partition("PyTorch ")[2].split()[0]) < 1e-5
    assert float(pt2.partition("PyTorch ")[2].split()[0]) < 1e-5
    assert "3 classes" in about
    assert sorted(path.name for path in exported.iterdir()) == ["model.json", "model.onnx", "model.pt2"]


def test_a_file_that_answers_otherwise_is_not_kept(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_text("of before")
    forward = Deployed.forward

    def drifts(self: Deployed, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, probabilities = forward(self, images)
        return logits + (0.0 if torch.compiler.is_compiling() else 0.01), probabilities

    monkeypatch.setattr(Deployed, "forward", drifts)
    assert main(["export", str(finished), "--out", str(out)]) == 2
    assert "nothing was kept" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["model.onnx"]
    assert (out / "model.onnx").read_text() == "of before"


def test_a_missing_package_is_one_message(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    assert main(["export", str(finished)]) == 2
    message = capsys.readouterr().err
    assert "onnxruntime" in message
    assert "pip install 'da6401[export]'" in message


def test_no_run_and_no_place_to_write_are_messages(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "file").write_text("")
    assert main(["export", str(finished), "--out", str(tmp_path / "file" / "out")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_model_beyond_the_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "LARGEST", 1000)
    with pytest.raises(ModelError, match="2 GiB"):
        export_model(_small_vit(), {}, tmp_path / "out", image_size=32, threads=1)
    assert not (tmp_path / "out").exists()


def _small_vit() -> StagedModel:
    vit = VisionTransformer(32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16)
    stages = {"patches": PatchTokens(vit), "block1": vit.encoder.layers[0], "norm": ClassToken(vit.encoder.ln)}
    nn.init.normal_(vit.encoder.pos_embedding)
    return StagedModel(stages=stages, head=nn.Linear(8, 3), mean=(0.5,) * 3, std=(0.5,) * 3)


def _first_stages_of_lite0() -> StagedModel:
    """With BatchNorm statistics that keep the activations alive, and a pool that rounds up, as GoogLeNet's do."""
    whole = build_model(PretrainedConfig(name="efficientnet_lite0", weights="none"), num_classes=3, image_size=32)
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    stages = {**dict(islice(whole.stages.items(), 3)), "pool": nn.MaxPool2d(3, stride=2, ceil_mode=True)}
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3))
    model = StagedModel(stages=stages, head=head, mean=(0.5,) * 3, std=(0.5,) * 3)
    with torch.no_grad():
        model(torch.rand(8, 3, 32, 32))
    model.freeze(1)
    return model


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(_first_stages_of_lite0, id="efficientnet_lite0, whose padding is computed"),
        pytest.param(_small_vit, id="a ViT, whose tokens are counted with len()"),
    ],
)
def test_what_backbones_are_made_of_answers_alike(build: Callable[[], StagedModel], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build().eval()
    assert len(export_model(model, {"class_names": ["a", "b", "c"]}, tmp_path, image_size=32, threads=1)) == 2
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        logits = model(images)
    assert float(logits.std(0).max()) > 1e-3, "answers that are all alike would prove nothing"
    theirs = torch.export.load(tmp_path / "model.pt2").module()(images)[0]
    assert torch.allclose(theirs, logits, atol=1e-4)
