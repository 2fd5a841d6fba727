"""`da6401 export`: the best model in other formats, checked against PyTorch; as ONNX in a folder that runs alone."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da6401.commands.data_of_run import data_of_run
from da6401.commands.exporting.deployed import (
    BATCHES,
    TOLERANCE,
    Answer,
    Deployed,
    largest_difference,
    quiet_exporters,
)
from da6401.commands.exporting.int8 import INT8, Images, Measured, measure, write_int8
from da6401.commands.exporting.onnx_files import ABOUT, ONNX, PT2, onnx_answer, pt2_answer, write_onnx_and_pt2
from da6401.commands.exporting.shipped import (
    REQUIREMENTS,
    SCRIPT,
    SCRIPT_NEEDS,
    check_script,
    formats_of_script,
    write_shipped,
)
from da6401.commands.exporting.target import (
    DIGEST,
    OTHER_TARGET,
    about_of,
    check_target,
    digest_of,
    files_of_another,
    removed,
)
from da6401.commands.exporting.weights_files import (
    SAFETENSORS,
    TORCHSCRIPT,
    safetensors_answer,
    torchscript_answer,
    write_safetensors,
    write_torchscript,
)
from da6401.config.schema import RunConfig
from da6401.data.sources import resize_of
from da6401.errors import ModelError, UserError
from da6401.models.ensemble import Ensemble
from da6401.models.stages import StagedModel
from da6401.plugins.needed import plugins_of
from da6401.redact import is_utf8, safe
from da6401.runs.atomic_files import explain_write_errors, name_elsewhere, write_json
from da6401.training.device import prepare, restore_torch_settings
from da6401.training.trained_model import load_model

PACKAGES = {  # by format
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "safetensors": ("safetensors",),
    "torchscript": (),
}
INT8_KEY = "int8"  # in ABOUT: what 8 bits cost
LARGEST = 2**31 - 2**24  # bytes of weights: an ONNX file ends at 2 GiB, its graph included


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is exported, and where."""

    out: Path | None = None  # RUN/export without
    formats: Sequence[str] = ("onnx",)  # of PACKAGES
    int8: bool = False  # a model of 8 bits beside model.onnx


@restore_torch_settings()
def export_run(folder: Path, wanted: Wanted, *, tta: bool, calibrated: bool) -> int:
    """Write a run's best model in the wanted formats, checked; with ONNX also the script that predicts with it.

    Args:
        tta: the exported model answers with the mean over the image and its mirror image.
        calibrated: at the temperature that was fitted on validation.

    Raises:
        UserError: a package is missing, the run is damaged, its data are not here (int8), the folder has files that
            would be lost, or a file answers otherwise than PyTorch; then the folder is as it was before.
    """
    needed = [name for each in wanted.formats for name in PACKAGES[each]]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}, not installed here: pip install 'da6401[export]'")
    if wanted.int8 and "onnx" not in wanted.formats:
        raise UserError(f"--int8: makes {INT8} of {ONNX}: add --to onnx")
    target = folder / "export" if wanted.out is None else wanted.out
    if not is_utf8(str(target.absolute())):
        raise UserError(f"{target}: onnxruntime opens no path that is not UTF-8; name another folder with --out")
    check_target(target, wanted.formats)
    with plugins_of(folder):
        return _exported(folder, wanted, target, tta=tta, calibrated=calibrated)


def _exported(folder: Path, wanted: Wanted, target: Path, *, tta: bool, calibrated: bool) -> int:
    model, cfg, class_names = load_model(folder, flips=tta, calibrated=calibrated)
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    if "onnx" in wanted.formats:
        check_script(size=min(cfg.data.image_size, 512), resize=resize_of(cfg.data))  # larger ones: the same arithmetic
    with data_of_run(folder, cfg.data):
        images = Images.of(cfg, class_names) if wanted.int8 else None
    export = Export(model, _about(model, cfg, class_names), target, threads=cfg.trainer.threads)
    for line in export.write(wanted.formats, images):
        print(line)
    print(f"{safe(target / ABOUT)}  {len(class_names)} classes, {resize_of(cfg.data)} to {cfg.data.image_size} px")
    if "onnx" in wanted.formats:
        needs = ", ".join(SCRIPT_NEEDS)
        print(f"{safe(target / SCRIPT)}  answers as da6401 predict, with {needs} alone ({REQUIREMENTS})")
    return 0


def _about(model: StagedModel | Ensemble, cfg: RunConfig, class_names: Sequence[str]) -> dict[str, Any]:
    """What the files say of themselves."""
    return {
        "class_names": list(class_names),
        "image_size": cfg.data.image_size,
        "resize": resize_of(cfg.data),
        "resize_rule": "a JPEG is decoded at 1/2, 1/4 or 1/8 where both sides stay at least image_size; upright by "
        "EXIF; 16-bit grey v becomes (v + 128) // 257; transparency lies on white; stretch: the whole picture, crop: "
        "its largest central square; to image_size x image_size, bicubic (a = -0.5), antialiased, first across and "
        "then down, each rounded to 8 bits, with weights of 16 bits: predict.py does exactly this",
        "formats": formats_of_script(),
        "input": "RGB, 0..1",
        "input_layout": "images: float32 (batch, 3, image_size, image_size); normalisation is inside the model",
        "model": cfg.model.name,
        "mirror_images": isinstance(model, Ensemble) and model.flips,
        "temperature": model.temperature if isinstance(model, Ensemble) else 1.0,
    }


class Export:
    """A model, on the CPU and in eval mode, on its way into a folder.

    Args:
        about: what the files say of themselves: plain values, image_size and resize among them.
        threads: of onnxruntime; 0 takes all cores that this process may use.
    """

    def __init__(self, model: StagedModel | Ensemble, about: dict[str, Any], target: Path, *, threads: int) -> None:
        self.deployed, self.target, self.threads = Deployed(model).eval(), target, threads
        self.about = {**about, DIGEST: digest_of(model.state_dict(), about)}
        self.size: int = about["image_size"]

    def write(self, formats: Sequence[str], images: Images | None = None) -> list[str]:
        """Write the files; returns a line on each model: its size and largest difference.

        Of the folder's other files those of another model are removed.

        Raises:
            ModelError: too large for the format, or the answers differ: nothing is kept.
        """
        weights = sum(each.numel() * each.element_size() for each in self.deployed.state_dict().values())
        if weights > LARGEST and "onnx" in formats:
            raise ModelError(f"{weights / 2**30:.1f} GiB of weights: an ONNX file holds 2 GiB; export a smaller model")
        with name_elsewhere(OTHER_TARGET), explain_write_errors(self.target):
            self.target.mkdir(parents=True, exist_ok=True)
            # In the target's own file system: once they are checked, they are only renamed.
            with tempfile.TemporaryDirectory(prefix=".export-", dir=self.target) as name, quiet_exporters():
                made = Path(name)
                lines = [self._compared(made / file, answer) for file, answer in self._models(formats, made).items()]
                about = dict(self.about)
                if images is not None:
                    measured = self._int8(made, images)
                    about[INT8_KEY] = measured.about()
                    lines.append(f"{safe(self.target / INT8)}  {_megabytes(made / INT8)}, {measured}")
                before = about_of(self.target)
                if "onnx" in formats:
                    self._ship(made, about)
                    if images is None:
                        (self.target / INT8).unlink(missing_ok=True)  # of another model.onnx
                elif INT8_KEY in before and before.get(DIGEST) == about[DIGEST]:
                    about[INT8_KEY] = before[INT8_KEY]  # it stays
                write_json(made / ABOUT, about)
                if others := files_of_another(self.target, formats, about):
                    lines.append(removed(others, known=DIGEST in before))
                    for path in (path for paths in others.values() for path in paths):
                        path.unlink()
                # ABOUT comes last: until then the folder says that it is of the model before.
                for path in sorted(made.iterdir(), key=lambda path: (path.name == ABOUT, path.name)):
                    os.replace(path, self.target / path.name)
        return lines

    def _models(self, formats: Sequence[str], made: Path) -> Mapping[str, Answer]:
        """Write the models; returns what each file answers."""
        answers: dict[str, Answer] = {}
        if "onnx" in formats:
            write_onnx_and_pt2(self.deployed, self.about, made, image_size=self.size)
            answers |= {ONNX: onnx_answer(made / ONNX, self.threads), PT2: pt2_answer(made / PT2)}
        if "safetensors" in formats:
            write_safetensors(self.deployed, self.about, made)
            answers[SAFETENSORS] = safetensors_answer(made / SAFETENSORS, self.deployed)
        if "torchscript" in formats:
            write_torchscript(self.deployed, self.about, made, image_size=self.size)
            answers[TORCHSCRIPT] = torchscript_answer(made / TORCHSCRIPT)
        return answers

    def _compared(self, path: Path, answer: Answer) -> str:
        file = self.target / path.name
        difference = largest_difference(self.deployed, answer, self.size)
        if not difference <= TOLERANCE:  # NaN too
            raise ModelError(
                f"{file}: its answers differ from PyTorch's by up to {difference:.1e}, and "
                f"{TOLERANCE:.0e} is allowed: nothing was kept. Try other versions of torch and onnxruntime"
            )
        return (
            f"{safe(file)}  {_megabytes(path)}, largest difference to PyTorch {difference:.1e} "
            f"(batches of {' and '.join(map(str, BATCHES))}, allowed {TOLERANCE:.0e})"
        )

    def _int8(self, made: Path, images: Images) -> Measured:
        write_int8(made, images)
        return measure(made, images, self.threads)

    def _ship(self, made: Path, about: Mapping[str, Any]) -> None:
        answers: dict[str, Answer] = {ONNX: self.deployed}
        if (made / INT8).exists():
            answers[INT8] = onnx_answer(made / INT8, self.threads)
        write_shipped(made, about, answers, resize=about["resize"])


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
