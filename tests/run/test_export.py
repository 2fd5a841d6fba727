"""da6401 export: files that answer as PyTorch does, and a script that answers as predict does; whole or not there."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.models import VisionTransformer

from da6401.cli import main
from da6401.commands import export
from da6401.commands.export import Export
from da6401.commands.exported import predict as script
from da6401.commands.exporting import shipped
from da6401.commands.exporting.deployed import Deployed
from da6401.commands.exporting.onnx_files import pt2_answer
from da6401.commands.exporting.shipped import NOT_IN_SCRIPT
from da6401.commands.exporting.weights_files import torchscript_answer
from da6401.config.schema import PretrainedConfig, Resize
from da6401.data.images import FORMATS, read_image
from da6401.errors import ModelError
from da6401.models.build import build_model
from da6401.models.stages import StagedModel
from da6401.models.vit import ClassToken, PatchTokens
from da6401.runs.predictions import read_predictions
from da6401.training.run import run
from da6401.training.trained_model import load_model
from tests.pngs import GREY, chunk, png
from tests.tiny_runs import SMALL, compose, da6401

pytestmark = pytest.mark.integration

ABOUT = {"class_names": ["a", "b", "c"], "image_size": 32, "resize": "stretch"}
# A stranger's Python: the script, and neither torch nor this package.
STRANGER = """
import pathlib, runpy, sys
sys.modules["torch"] = sys.modules["torchvision"] = sys.modules["da6401"] = None
sys.path[0] = str(pathlib.Path(sys.argv[1]).parent)
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def photograph(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """Edges and noise, so that another way of resizing shows."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 7 + 1, width // 5 + 1, 3)).repeat(7, 0).repeat(5, 1)[:height, :width]
    return Image.fromarray((blocks + rng.normal(0, 12, blocks.shape)).clip(0, 255).astype(np.uint8))


def make_pictures(folder: Path) -> list[Path]:
    """Files of every kind that the script reads, those that are hard to read right among them."""
    transparent = photograph(61, 47).convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize((61, 47)))
    palette = photograph(50, 70).quantize(32)
    grey_16 = np.arange(90 * 70, dtype=np.uint16).reshape(70, 90) * 10
    made: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "large.jpg": (photograph(801, 1203), {"quality": 85}),  # decoded at reduced scale, a part of a pixel left over
        "wide.jpg": (photograph(1999, 70), {}),
        "thin.jpg": (photograph(3, 1200), {}),
        "grey.jpg": (photograph(333, 257).convert("L"), {}),
        "cmyk.jpg": (photograph(333, 257).convert("CMYK"), {}),
        "progressive.jpg": (photograph(640, 480), {"progressive": True, "subsampling": 0}),
        "small.png": (photograph(5, 4), {}),
        "one.png": (photograph(1, 1), {}),
        "exact.png": (photograph(16, 16), {}),
        "alpha.png": (transparent, {}),
        "grey_alpha.png": (transparent.convert("LA"), {}),
        "palette.png": (palette, {"transparency": bytes(range(0, 256, 8))}),
        "one_transparent.png": (palette, {"transparency": 3}),
        "bilevel.png": (photograph(90, 90).convert("1"), {}),
        "sixteen.png": (Image.fromarray(grey_16), {}),
        "lossy.webp": (photograph(200, 130), {}),
        "alpha.webp": (transparent, {"lossless": True}),
        "palette.gif": (palette, {"transparency": 3}),
        "animated.gif": (palette, {"save_all": True, "append_images": [photograph(50, 70, seed=1).quantize(8)]}),
        "colour transparent.png": (photograph(90, 90), {"transparency": photograph(90, 90).getpixel((3, 3))}),
        "plain.bmp": (photograph(77, 33), {}),
        "plain.ppm": (photograph(77, 33), {}),
    }
    for turn in range(1, 10):  # 9 means nothing
        exif = Image.Exif()
        exif[0x0112] = turn
        made[f"turned {turn}.jpg"] = (photograph(411 + turn, 290), {"exif": exif})
    made["turned.png"] = (photograph(41, 29), {"exif": exif})
    for name, (picture, words) in made.items():
        picture.save(folder / name, **words)
    (folder / "bad exif.jpg").write_bytes(
        (folder / "grey.jpg").read_bytes().replace(b"\xff\xd8", b"\xff\xd8\xff\xe1\x00\x0eExif\0\0MM\0*\xff\xff", 1)
    )
    for bits in (1, 2, 4, 8, 16):  # one transparent value, in the file's own bits
        samples = np.arange(23 * 31).reshape(23, 31) * 61 % 2**bits
        transparent_value = chunk(b"tRNS", struct.pack(">H", int(samples[9, 9])))
        (folder / f"transparent_{bits}.png").write_bytes(png(samples, bits, GREY, before=transparent_value))
    shutil.copy(Path(__file__).parents[1] / "images" / "lossless.jpg", folder)
    return sorted(folder.iterdir())


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


@pytest.fixture(scope="module")
def quantised(finished: Path) -> Path:
    """An exported folder with a model of 8 bits."""
    out = finished.parent / "quantised"
    done = da6401("export", str(finished), "--int8", "--out", str(out), cwd=finished.parent)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


def by_script(exported: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """predict.py of an exported folder, from another folder and without torch and da6401."""
    return by_stranger(exported / "predict.py", *words)


def by_stranger(file: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", STRANGER, str(file), *map(str, words)]
    return subprocess.run(line, cwd="/", capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("size", [16, 64, 97])
def test_the_script_makes_the_same_picture_bit_for_bit(pictures: list[Path], resize: Resize, size: int) -> None:
    formats = [name for name in FORMATS if name not in NOT_IN_SCRIPT]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about the damaged EXIF block
        for path in pictures:
            theirs = script.read(path, formats, size, crop=resize == "crop").transpose(2, 0, 1)
            ours = read_image(path, size=size, resize=resize)
            assert np.array_equal(ours, theirs), f"{path.name} differs by up to {np.ptp(ours.astype(int) - theirs)}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300), st.integers(0, 9))
def test_its_resizing_is_torchs(height: int, width: int, size: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    across = script.resample(pixels.transpose(1, 0, 2), size).transpose(1, 0, 2)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None], (size, size), mode="bicubic", antialias=True
    )
    assert np.array_equal(theirs[0].permute(1, 2, 0).numpy(), script.resample(across, size))


def test_a_stranger_gets_the_answers_of_predict(
    finished: Path, exported: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(exported, moved)
    assert main(["predict", str(finished), *map(str, pictures), "--json"]) == 0
    ours = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    done = by_script(moved, *pictures, "--json")
    assert done.returncode == 0, done.stderr
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ours) == len(theirs) == len(pictures)
    for one, other in zip(ours, theirs, strict=True):
        assert list(one) == list(other)
        assert (one["image"], one["class"]) == (other["image"], other["class"])
        assert other["probability"] == pytest.approx(one["probability"], abs=1e-5)
        assert other["probabilities"] == pytest.approx(one["probabilities"], abs=1e-5)
    assert main(["predict", str(finished), str(pictures[0])]) == 0
    assert by_script(moved, pictures[0]).stdout == capsys.readouterr().out


def test_8_bits_that_are_not_there_are_said(exported: Path, pictures: list[Path]) -> None:
    done = by_script(exported, pictures[0], "--int8")
    assert done.returncode == 2
    assert "da6401 export RUN --int8" in done.stderr


def test_the_script_refuses_what_it_cannot_read_and_goes_on(
    exported: Path, pictures: list[Path], tmp_path: Path
) -> None:
    photograph(20, 20).save(tmp_path / "scan.tif")
    large = next(path for path in pictures if path.name == "large.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(large[: len(large) // 2])
    bad = [tmp_path / "scan.tif", tmp_path / "cut.jpg", tmp_path / "missing.jpg", tmp_path]
    done = by_script(exported, *bad, pictures[0])
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1
    assert len(done.stderr.splitlines()) == len(bad)
    assert all(str(path) in line for path, line in zip(bad, done.stderr.splitlines(), strict=True))
    assert "JPEG, PNG" in done.stderr


def test_the_script_stops_when_nobody_reads_its_output(exported: Path, pictures: list[Path]) -> None:
    """As `da6401 predict`, which ends in 141."""
    line = [sys.executable, "-c", STRANGER, str(exported / "predict.py"), str(pictures[0])]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        assert started.stderr.read() == ""
    assert started.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("words", [["predict.py", shipped.SMALL], ["check.py"]])
def test_output_that_cannot_be_written_is_told(exported: Path, words: list[str]) -> None:
    line = [sys.executable, *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, cwd=exported, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"{words[0]}: the output cannot be written: ")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.onnx", None, "model.onnx"),
        ("model.onnx", b"no model", "model.onnx"),
        ("preprocess.json", None, "preprocess.json"),
        ("preprocess.json", b"{", "preprocess.json: damaged"),
        ("preprocess.json", b"[]", "preprocess.json: damaged"),
        ("parity.json", None, "parity.json"),
        ("parity.json", b"{}", "parity.json: damaged (KeyError('pictures'))"),
        (shipped.SMALL, None, shipped.SMALL),
    ],
)
def test_what_is_missing_or_damaged_in_an_exported_folder_is_told_in_a_line(
    exported: Path, pictures: list[Path], tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    """check.py keeps 1 for answers that differ."""
    moved = tmp_path / "moved"
    shutil.copytree(exported, moved)
    if content is None:
        (moved / name).unlink()
    else:
        (moved / name).write_bytes(content)
    needed = name in ("model.onnx", "preprocess.json")
    for file, words in (("predict.py", pictures[:1]), ("check.py", []))[0 if needed else 1 :]:
        done = by_stranger(moved / file, *words)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"{file}: ")
        assert said in line


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
    onnx, pt2, about, script_line = told.stdout.splitlines()
    assert "model.onnx" in onnx
    assert "model.pt2" in pt2
    assert float(onnx.partition("PyTorch ")[2].split()[0]) < 1e-5
    assert float(pt2.partition("PyTorch ")[2].split()[0]) < 1e-5
    assert "3 classes" in about
    assert "predict.py" in script_line
    assert {path.name for path in exported.iterdir()} == {"model.onnx", "model.pt2", "model.json", *shipped.FILES}
    for line in (exported / "requirements.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        assert importlib.metadata.version(name) == version


def test_the_check_of_a_folder_finds_what_answers_otherwise(quantised: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(quantised, moved)
    done = by_stranger(moved / "check.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["ok", model, name] for model in ("model.onnx", "model.int8.onnx") for name in (shipped.LARGE, shipped.SMALL)
    ]
    known = json.loads((moved / "parity.json").read_text())
    known["pictures"][shipped.SMALL]["logits"]["model.onnx"][0] += 0.01  # another model
    (moved / "parity.json").write_text(json.dumps(known))
    photograph(35, 49).save(moved / shipped.LARGE)  # another decoder
    done = by_stranger(moved / "check.py")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["BAD", "BAD", "BAD", "ok"]
    assert done.stdout.count("OTHER PIXELS") == 2


def test_the_dockerfile_does_what_it_says(quantised: Path, tmp_path: Path) -> None:
    """Without Docker: its copies are made, its check is run, and its entry point, by a Python without torch."""
    lines = [line.split() for line in (quantised / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == ["FROM", f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"]
    for words in lines:
        if words[0] == "COPY":
            for pattern in words[1:-1]:
                found = list(quantised.glob(pattern))
                assert found, pattern
                for path in found:
                    shutil.copy(path, tmp_path)
    assert ["RUN", "pip", "install", "--no-cache-dir", "--requirement", "requirements.txt"] in lines
    assert ["RUN", "python", "check.py"] in lines
    assert by_stranger(tmp_path / "check.py").returncode == 0
    assert lines[-1] == ["ENTRYPOINT", '["python",', '"/model/predict.py"]']
    assert json.loads(by_script(tmp_path, tmp_path / shipped.SMALL, "--json").stdout)["class"]


def test_the_accuracy_of_8_bits_is_that_of_its_answers(finished: Path, quantised: Path) -> None:
    about = json.loads((quantised / "model.json").read_text())["int8"]
    root = Path(data_root(finished))
    files = [root / name for name in read_predictions(finished / "validation.csv").names]
    right, classes = {}, {}
    for words in ((), ("--int8",)):
        lines = [json.loads(line) for line in by_script(quantised, *files, "--json", *words).stdout.splitlines()]
        classes[words] = [line["class"] for line in lines]
        right[words] = sum(line["class"] == Path(line["image"]).parent.name for line in lines)
    assert (about["images"], about["calibration_images"]) == (len(files), 18)
    assert about["accuracy"] == right[("--int8",)] / len(files)
    assert about["accuracy_fp32"] == right[()] / len(files)
    assert about["differ"] == sum(one != other for one, other in zip(*classes.values(), strict=True))
    assert abs(about["accuracy"] - about["accuracy_fp32"]) < 0.1
    assert f"accuracy {about['accuracy']:.4f}" in (quantised / "README.md").read_text()
    kinds = {each.name: each.data_type for each in onnx.load(quantised / "model.int8.onnx").graph.initializer}
    weights = [kind for name, kind in kinds.items() if name.endswith("weight_quantized")]
    assert weights == [onnx.TensorProto.INT8] * 4, "two convolutions and two linear layers"


def data_root(run_folder: Path) -> str:
    line = next(
        line for line in (run_folder / "config.yaml").read_text().splitlines() if line.strip().startswith("root:")
    )
    return line.partition(":")[2].strip()


def test_mirror_images_and_a_temperature_are_in_8_bits_too(finished: Path, pictures: list[Path]) -> None:
    """The means of probabilities, and the logarithm, are not of 8 bits: the answers stay near."""
    out = finished.parent / "tta"
    words = ("--tta", "--calibrated", "--int8", "--to", "onnx", "--to", "torchscript", "--out", str(out))
    done = da6401("export", str(finished), *words, cwd=finished.parent)
    assert done.returncode == 0, done.stderr
    assert {"model.onnx", "model.int8.onnx", "model.torchscript"} <= {path.name for path in out.iterdir()}
    some = pictures[:6]
    fp32, int8 = (
        [json.loads(line)["probabilities"] for line in by_script(out, *some, "--json", *words).stdout.splitlines()]
        for words in ((), ("--int8",))
    )
    assert fp32 != int8
    for one, other in zip(fp32, int8, strict=True):
        assert other == pytest.approx(one, abs=0.1)


def test_weights_as_safetensors_are_those_of_the_checkpoint(finished: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    done = da6401("export", str(finished), "--to", "safetensors", "--out", str(tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "largest difference to PyTorch 0.0e+00" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.safetensors", "model.json"}
    expected = load_model(finished)[0].state_dict()
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(expected)
        assert all(torch.equal(file.get_tensor(name), each) for name, each in expected.items())
        assert json.loads(file.metadata()["class_names"]) == ["blue", "green", 'røde, "x"']


def test_a_folder_keeps_files_of_one_model_alone(
    finished: Path, quantised: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "out", ["export", str(finished), "--to", "safetensors", "--out", str(tmp_path / "out")]
    shutil.copytree(quantised, out)
    before = json.loads((out / "model.json").read_text())
    assert main(words) == 0
    assert json.loads((out / "model.json").read_text()) == before, "the same model: all is kept, 8 bits too"
    names = {"model.onnx", "model.pt2", "model.int8.onnx", *shipped.FILES}
    assert {path.name for path in out.iterdir()} == {*names, "model.json", "model.safetensors"}
    assert "removed" not in capsys.readouterr().out
    (out / "notes.txt").write_text("mine")
    assert main([*words, "--tta"]) == 0
    assert {path.name for path in out.iterdir()} == {"model.json", "model.safetensors", "notes.txt"}
    told = capsys.readouterr().out
    assert "removed, for they were of another model or other settings: " in told
    assert all(str(out / name) in told for name in names)
    assert "; --to onnx --int8 writes them of this one" in told
    about = json.loads((out / "model.json").read_text())
    assert about["mirror_images"] is True
    (out / "model.json").write_text(json.dumps({key: about[key] for key in about if key != "digest"}))
    words[3] = "torchscript"
    assert main([*words, "--tta"]) == 0
    assert "removed" not in capsys.readouterr().out, "an older version's folder with the same settings"
    (out / "model.json").write_text(json.dumps({key: about[key] for key in about if key != "digest"}))
    (out / "model.torchscript").unlink()
    assert main(words) == 0
    assert {path.name for path in out.iterdir()} == {"model.json", "model.torchscript", "notes.txt"}
    assert "removed, for their version does not say of which model: " in capsys.readouterr().out


def test_files_that_no_export_wrote_are_not_replaced(
    finished: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "photos").mkdir()
    words = ["export", str(finished), "--out", str(tmp_path)]
    for _ in range(2):  # a folder with another format in it, too
        assert main(words) == 2
        told = capsys.readouterr().err
        assert told.startswith(
            f"da6401: {tmp_path}: has files of these names that da6401 export did not write: README.md;"
        )
        assert main([*words, "--to", "safetensors"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "photos", "model.json", "model.safetensors"}
    assert (tmp_path / "README.md").read_text() == "mine"
    old = tmp_path / "old"  # of the version before check.py
    shutil.copytree(exported, old, ignore=shutil.ignore_patterns("parity*", "check.py", "Dockerfile"))
    assert main(["export", str(finished), "--out", str(old)]) == 0
    assert {path.name for path in old.iterdir()} == {path.name for path in exported.iterdir()}
    assert main(["export", str(finished), "--out", str(tmp_path / "README.md")]) == 2
    assert "README.md: is a file; name another folder (--out DIR)" in capsys.readouterr().err


def test_torchscript_needs_torch_alone(finished: Path, tmp_path: Path) -> None:
    assert main(["export", str(finished), "--to", "torchscript", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"model.torchscript", "model.json"}
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.save(images, tmp_path / "images.pt")
    alone = (
        "import json, sys, torch; sys.modules['da6401'] = None; extra = {'model.json': ''}\n"
        "model = torch.jit.load(sys.argv[1] + '/model.torchscript', _extra_files=extra)\n"
        "logits = model(torch.load(sys.argv[1] + '/images.pt'))[0]\n"
        "print(json.dumps([json.loads(extra['model.json']), logits.tolist()]))"
    )
    line = [sys.executable, "-W", "ignore", "-c", alone, str(tmp_path)]
    about, logits = json.loads(subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert about == json.loads((tmp_path / "model.json").read_text())
    with torch.no_grad():
        assert torch.allclose(torch.tensor(logits), load_model(finished)[0](images), atol=1e-5)


def test_8_bits_need_onnx_and_the_data(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["export", str(finished), "--to", "torchscript", "--int8", "--out", str(tmp_path / "out")]) == 2
    assert "add --to onnx" in capsys.readouterr().err
    root = Path(data_root(finished))
    elsewhere = root.with_name("elsewhere")
    root.rename(elsewhere)
    try:
        assert main(["export", str(finished), "--int8", "--out", str(tmp_path / "out")]) == 2
    finally:
        elsewhere.rename(root)
    assert str(root) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_that_answers_otherwise_is_not_kept(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_text("of before")
    (out / "model.json").write_text('{"class_names": [], "image_size": 16}')
    forward = Deployed.forward

    def drifts(self: Deployed, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, probabilities = forward(self, images)
        return logits + (0.0 if torch.compiler.is_compiling() else 0.01), probabilities

    monkeypatch.setattr(Deployed, "forward", drifts)
    assert main(["export", str(finished), "--out", str(out)]) == 2
    assert "nothing was kept" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["model.json", "model.onnx"]
    assert (out / "model.onnx").read_text() == "of before"


def test_a_script_that_reads_otherwise_is_not_shipped(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resample = script.resample
    monkeypatch.setattr(script, "resample", lambda rows, size: resample(rows, size) ^ 1)
    assert main(["export", str(finished), "--out", str(tmp_path / "out")]) == 2
    assert "nothing was exported" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
        Export(_small_vit(), ABOUT, tmp_path / "out", threads=1).write(["onnx"])
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


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:FutureWarning")
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
    (tmp_path / "model.int8.onnx").write_text("of another model.onnx")
    lines = Export(model, ABOUT, tmp_path, threads=1).write(["onnx", "safetensors", "torchscript"])
    assert [Path(line.split()[0]).name for line in lines] == [
        "model.onnx", "model.pt2", "model.safetensors", "model.torchscript"
    ]  # fmt: skip
    assert not (tmp_path / "model.int8.onnx").exists()
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        logits = model(images)
    assert float(logits.std(0).max()) > 1e-3, "answers that are all alike would prove nothing"
    for answer in (pt2_answer(tmp_path / "model.pt2"), torchscript_answer(tmp_path / "model.torchscript")):
        assert torch.allclose(answer(images)[0], logits, atol=1e-4)
