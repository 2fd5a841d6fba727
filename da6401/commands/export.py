"""`da6401 export`: the best model as ONNX and torch.export files, checked against PyTorch, with their preprocessing."""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from da6401.config.schema import Resize
from da6401.data.images import FORMATS, read_image
from da6401.data.sources import resize_of
from da6401.errors import ModelError, UserError
from da6401.machine.cores import available_cores
from da6401.models.ensemble import Ensemble
from da6401.models.stages import StagedModel
from da6401.redact import is_utf8, json_text, safe
from da6401.runs.atomic_files import explain_write_errors, write_atomic, write_json, write_text
from da6401.training.device import prepare, restore_torch_settings
from da6401.training.trained_model import load_model

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
ONNX, PT2, ABOUT = "model.onnx", "model.pt2", "model.json"
PREPROCESS = "preprocess.json"  # what ABOUT says, for SCRIPT
SCRIPT, README, REQUIREMENTS = "predict.py", "README.md", "requirements.txt"
FILES = (ONNX, PT2, ABOUT, PREPROCESS, SCRIPT, README, REQUIREMENTS)
SHIPPED = Path(__file__).parent / "exported"  # where SCRIPT and README are copied from
SCRIPT_NEEDS = ("numpy", "onnxruntime", "pillow")
NOT_IN_SCRIPT = ("TIFF",)  # its many kinds are read by rules that the script does not have
INPUT, OUTPUTS = "images", ("logits", "probabilities")
# Largest difference to PyTorch, relative to the largest logit where that is above 1. The rounding of float32 comes to
# 1e-7 in a small network and to 1e-4 in fifty badly conditioned layers; an operator that is exported wrongly, to 1e-1.
TOLERANCE = 1e-3
BATCHES = (1, 3)  # sizes at which the files are compared
LARGEST = 2**31 - 2**24  # bytes of weights: an ONNX file ends at 2 GiB, its graph included

Answer = Callable[[Tensor], Sequence[Tensor]]  # images (B, C, H, W) -> logits and probabilities, each (B, K)


class Deployed(nn.Module):
    """Images (B, C, H, W), RGB in 0..1 -> logits and probabilities, each (B, K)."""

    def __init__(self, model: StagedModel | Ensemble) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits_BK = self.model(images)
        return logits_BK, logits_BK.softmax(1)


@restore_torch_settings()
def export_run(folder: Path, out: Path | None, *, tta: bool, calibrated: bool) -> int:
    """Write a run's best model and the script that predicts with it into ``out`` (RUN/export without), checked.

    Args:
        tta: the exported model answers with the mean over the image and its mirror image.
        calibrated: at the temperature that was fitted on validation.

    Raises:
        UserError: a package is missing, the run is damaged, or a file answers otherwise than PyTorch; then the folder
            is as it was before.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}, not installed here: pip install 'da6401[export]'")
    target = folder / "export" if out is None else out
    if not is_utf8(str(target.absolute())):
        raise UserError(f"{target}: onnxruntime opens no path that is not UTF-8; name another folder with --out")
    model, cfg, class_names = load_model(folder, flips=tta, calibrated=calibrated)
    resize = resize_of(cfg.data)
    check_script(size=cfg.data.image_size, resize=resize)
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    about = {
        "class_names": class_names,
        "image_size": cfg.data.image_size,
        "resize": resize,
        "resize_rule": "a JPEG is decoded at 1/2, 1/4 or 1/8 where both sides stay at least image_size; upright by "
        "EXIF; 16-bit grey v becomes (v + 128) // 257; transparency lies on white; stretch: the whole picture, crop: "
        "its largest central square; to image_size x image_size, bicubic (a = -0.5), antialiased, first across and "
        "then down, each rounded to 8 bits, with weights of 16 bits: predict.py does exactly this",
        "formats": [name for name in FORMATS if name not in NOT_IN_SCRIPT],
        "input": "RGB, 0..1",
        "input_layout": "images: float32 (batch, 3, image_size, image_size); normalisation is inside the model",
        "model": cfg.model.name,
        "mirror_images": isinstance(model, Ensemble) and model.flips,
        "temperature": model.temperature if isinstance(model, Ensemble) else 1.0,
    }
    for line in export_model(model, about, target, image_size=cfg.data.image_size, threads=cfg.trainer.threads):
        print(line)
    print(f"{safe(target / ABOUT)}  {len(class_names)} classes, {about['resize']} to {cfg.data.image_size} px")
    print(f"{safe(target / SCRIPT)}  answers as da6401 predict, with {', '.join(SCRIPT_NEEDS)} alone ({REQUIREMENTS})")
    return 0


def export_model(
    model: StagedModel | Ensemble, about: dict[str, Any], target: Path, *, image_size: int, threads: int
) -> list[str]:
    """Write the files into a folder; returns a line on each of the two models: its size and largest difference.

    Args:
        model: on the CPU and in eval mode.
        about: what the files say of themselves, plain values.
        threads: of onnxruntime; 0 takes all cores that this process may use.

    Raises:
        ModelError: too large for the format, or the answers differ: nothing is kept.
    """
    weights = sum(each.numel() * each.element_size() for each in model.state_dict().values())
    if weights > LARGEST:
        raise ModelError(f"{weights / 2**30:.1f} GiB of weights: an ONNX file holds 2 GiB; export a smaller model")
    deployed = Deployed(model).eval()
    lines = []
    with explain_write_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        # In the target's own file system: once they are checked, they are only renamed.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as name, _quiet():
            made = Path(name)
            program = _traced(deployed, image_size)
            write_atomic(
                made / PT2, lambda file: torch.export.save(program, file, extra_files={ABOUT: json_text(about)})
            )
            content = _onnx(program, about)
            write_atomic(made / ONNX, lambda file: file.write(content))
            for each in (ABOUT, PREPROCESS):
                write_json(made / each, about)
            for each in (SCRIPT, README):
                write_text(made / each, (SHIPPED / each).read_text(encoding="utf-8"))
            write_text(made / REQUIREMENTS, requirements())
            for each, answer in ((ONNX, _onnx_answer(made / ONNX, threads)), (PT2, _pt2_answer(made / PT2))):
                difference = largest_difference(deployed, answer, image_size)
                if not difference <= TOLERANCE:  # NaN too
                    raise ModelError(
                        f"{target / each}: its answers differ from PyTorch's by up to {difference:.1e}, and "
                        f"{TOLERANCE:.0e} is allowed: nothing was kept. Try other versions of torch and onnxruntime"
                    )
                size = (made / each).stat().st_size / 1e6
                lines.append(
                    f"{safe(target / each)}  {size:.1f} MB, largest difference to PyTorch {difference:.1e} "
                    f"(batches of {' and '.join(map(str, BATCHES))}, allowed {TOLERANCE:.0e})"
                )
            for each in FILES:
                os.replace(made / each, target / each)
    return lines


def check_script(*, size: int, resize: Resize) -> None:
    """Let the script read two pictures, and compare with what `da6401 predict` reads here: every pixel must be equal.

    Raises:
        ModelError: one is not; its arithmetic is that of the versions of torch that it was written for.
    """
    from da6401.commands.exported.predict import read  # imports onnxruntime, an extra

    size = min(size, 512)  # the arithmetic is the same, and the picture stays small
    # Larger and smaller than the model's: a JPEG that is decoded at reduced scale, and a PNG that is enlarged.
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (2 * size + 3, 3 * size + 1, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels_HWC)
    with tempfile.TemporaryDirectory() as name:
        large, small = Path(name, "large.jpg"), Path(name, "small.png")
        picture.save(large)
        picture.crop((0, 0, size // 2 + 1, size // 3 + 1)).save(small)
        for path in (large, small):
            theirs_HWC = read(path, list(FORMATS), size, crop=resize == "crop")
            if not np.array_equal(read_image(path, size=size, resize=resize), theirs_HWC.transpose(2, 0, 1)):
                raise ModelError(
                    f"{SCRIPT} reads a {path.suffix[1:].upper()} otherwise than da6401 predict does with torch "
                    f"{torch.__version__}: nothing was exported. Try another version of torch"
                )


def requirements() -> str:
    """requirements.txt of the script: the versions that are here, whose answers have been compared."""
    return "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in SCRIPT_NEEDS)


def largest_difference(deployed: Deployed, answer: Answer, image_size: int) -> float:
    """The largest difference of logits and probabilities on random images, as TOLERANCE counts it."""
    generator = torch.Generator().manual_seed(0)
    worst = []
    for size in BATCHES:
        images_BCHW = torch.rand(size, 3, image_size, image_size, generator=generator)
        with torch.inference_mode():
            expected = deployed(images_BCHW)
            scale = max(1.0, float(expected[0].abs().max()))
            for ours, theirs in zip(expected, answer(images_BCHW), strict=True):
                worst.append((ours - theirs).abs().max() / scale)
    return float(torch.stack(worst).max())  # torch's max keeps a NaN


def _traced(deployed: Deployed, image_size: int) -> ExportedProgram:
    example_BCHW = torch.zeros(2, 3, image_size, image_size)
    # strict: without it, Python's len() of a tensor (in ViT) would fix the batch at this example's.
    with torch.no_grad():
        program = torch.export.export(deployed, (example_BCHW,), dynamic_shapes=_dynamic_batch(), strict=True)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine
    return program


def _dynamic_batch() -> tuple[dict[int, Dim]]:
    return ({0: Dim("batch")},)


def _onnx(program: ExportedProgram, about: dict[str, Any]) -> bytes:
    made = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=OUTPUTS, dynamic_shapes=_dynamic_batch(), verbose=False
    )
    assert made is not None, "dynamo=True returns the program"
    for key, value in about.items():
        made.model.metadata_props[key] = value if isinstance(value, str) else json_text(value)
    for node in made.model.graph:
        node.metadata_props.clear()  # how torch came to this node
    content: bytes = made.model_proto.SerializeToString()
    return content


def _onnx_answer(path: Path, threads: int) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads or available_cores()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def answer(images_BCHW: Tensor) -> Sequence[Tensor]:
        return [torch.from_numpy(np.asarray(each)) for each in session.run(OUTPUTS, {INPUT: images_BCHW.numpy()})]

    return answer


def _pt2_answer(path: Path) -> Answer:
    answer: Answer = torch.export.load(path).module()
    return answer


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block the exporters print no warnings: they are about the exporters themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
