"""What is shipped beside model.onnx: the script that predicts, the check of parity, Dockerfile, README."""

# S side of the model's square in px

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from da6401.commands.exporting.deployed import TOLERANCE, Answer
from da6401.config.schema import Resize
from da6401.config.splits import VALIDATION
from da6401.data.images import FORMATS, read_image
from da6401.errors import ModelError
from da6401.runs.atomic_files import write_json, write_text

PREPROCESS = "preprocess.json"  # what model.json says, for SCRIPT
SCRIPT, CHECK, DOCKERFILE, README, REQUIREMENTS = (
    "predict.py",
    "check.py",
    "Dockerfile",
    "README.md",
    "requirements.txt",
)
PARITY = "parity.json"
LARGE, SMALL = "parity-large.jpg", "parity-small.png"
SHIPPED = Path(__file__).parents[1] / "exported"
SCRIPT_NEEDS = ("numpy", "onnxruntime", "pillow")
NOT_IN_SCRIPT = ("TIFF",)  # its many kinds are read by rules that the script does not have
FIRST_FILES = (PREPROCESS, SCRIPT, README, REQUIREMENTS)  # of a version without PARITY
FILES = (*FIRST_FILES, CHECK, DOCKERFILE, PARITY, LARGE, SMALL)
# The same of 8-bit arithmetic, which processors do in different ways: a processor without VNNI may saturate sums.
INT8_TOLERANCE = 0.1
INT8_README = """
## 8 bits

`model.int8.onnx` (`python predict.py a.jpg --int8`) has {accuracy_on} {accuracy:.4f}, and `model.onnx` has
{accuracy_fp32:.4f}: {differ} of these {images} images get another class. The ranges of its numbers come from
{calibration_images} training images.
"""


def write_shipped(folder: Path, about: Mapping[str, Any], answers: Mapping[str, Answer], *, resize: Resize) -> None:
    """Write FILES.

    Args:
        about: what model.json says.
        answers: what each ONNX file of the folder has to answer: parity.json keeps it.
    """
    write_json(folder / PREPROCESS, about)
    for each in (SCRIPT, CHECK):
        write_text(folder / each, (SHIPPED / each).read_text(encoding="utf-8"))
    version = ".".join(platform.python_version_tuple()[:2])  # that the requirements are for
    write_text(folder / DOCKERFILE, (SHIPPED / DOCKERFILE).read_text(encoding="utf-8").replace("{python}", version))
    readme = (SHIPPED / README).read_text(encoding="utf-8")
    if "int8" in about:
        readme += INT8_README.format(**about["int8"], accuracy_on=accuracy_on(about["int8"]["split"]))
    write_text(folder / README, readme)
    write_text(folder / REQUIREMENTS, requirements())
    write_pictures(folder, about["image_size"])
    allowed = {name: INT8_TOLERANCE if "int8" in name else TOLERANCE for name in answers}
    pictures = {}
    for name in (LARGE, SMALL):
        pixels_CHW = read_image(folder / name, size=about["image_size"], resize=resize)
        images_BCHW = torch.from_numpy(pixels_CHW[None]).float().div_(255)
        with torch.inference_mode():
            logits = {model: answer(images_BCHW)[0][0].tolist() for model, answer in answers.items()}
        pictures[name] = {"sha256": _sha256(pixels_CHW), "logits": logits}
    write_json(folder / PARITY, {"allowed": allowed, "pictures": pictures})


def accuracy_on(split: str) -> str:
    """What an accuracy on the images of this split is called."""
    return "validation accuracy" if split == VALIDATION else "accuracy on images that it was trained on"


def write_pictures(folder: Path, size: int) -> None:
    """A JPEG that is decoded at reduced scale, and a PNG that is enlarged: no one's photographs."""
    rng = np.random.default_rng(0)
    blocks_HWC = rng.integers(0, 256, (2 * size // 7 + 1, 3 * size // 5 + 1, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks_HWC.repeat(7, 0).repeat(5, 1)[: 2 * size + 3, : 3 * size + 1])
    picture.save(folder / LARGE)
    picture.crop((0, 0, size // 2 + 1, size // 3 + 1)).save(folder / SMALL)


def check_script(*, size: int, resize: Resize) -> None:
    """Let the script read two pictures, and compare with what `da6401 predict` reads here: every pixel must be equal.

    Raises:
        ModelError: one is not; its arithmetic is that of the versions of torch that it was written for.
    """
    from da6401.commands.exported.predict import read  # imports onnxruntime, an extra

    with tempfile.TemporaryDirectory() as name:
        write_pictures(Path(name), size)
        for path in (Path(name, LARGE), Path(name, SMALL)):
            theirs_HWC = read(path, list(FORMATS), size, crop=resize == "crop")
            if not np.array_equal(read_image(path, size=size, resize=resize), theirs_HWC.transpose(2, 0, 1)):
                raise ModelError(
                    f"{SCRIPT} reads a {path.suffix[1:].upper()} otherwise than da6401 predict does with torch "
                    f"{torch.__version__}: nothing was exported. Try another version of torch"
                )


def requirements() -> str:
    """requirements.txt of the script: the versions that are here, whose answers have been compared."""
    return "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in SCRIPT_NEEDS)


def formats_of_script() -> Sequence[str]:
    """The formats that the script reads, as Pillow names them."""
    return [name for name in FORMATS if name not in NOT_IN_SCRIPT]


def _sha256(pixels_CHW: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)).tobytes()).hexdigest()
