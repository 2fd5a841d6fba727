"""python -m benchmarks.export --run RUN [--run ...] --root DIR: does every exported file answer as `da6401 predict`?

Each RUN was trained on DIR, a folder with a test split. All its test images are answered one by one: by `predict`, by
predict.py in a Python that can import neither torch nor da6401, by the other formats, and by the server. (`predict`
records a look at the test split in RUN.) What 8 bits cost is measured on validation and test, also where one thing of
the quantisation is done otherwise. The page is benchmarks/export.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.serving import machine, post, served
from da6401.commands.exporting import int8
from da6401.commands.exporting.int8 import INT8, Images, write_int8
from da6401.commands.exporting.onnx_files import ONNX, PT2, onnx_answer, pt2_answer
from da6401.commands.exporting.weights_files import TORCHSCRIPT, torchscript_answer
from da6401.commands.predictor import Predictor
from da6401.data.image_sets import ImageSet
from da6401.data.sources import load_test_data
from da6401.metrics.paired import mcnemar

PAGE = Path(__file__).with_suffix(".md")
TEXT = """# Does every exported file answer as predict?

Written by `python -m benchmarks.export --run RUN [--run RUN ...] --root DIR` on {machine}.

What 8 bits cost is the rounding of the weights: with activations of 16 bits the error of the logits hardly falls, and
with weights of 16 bits too it is gone. One scale for a whole layer makes it four times as large on the network with
depthwise convolutions, so each channel has its own. Biases that make up for the mean error take away four tenths of it
there. What accuracy is lost or won by it is within chance on these images.
"""
# Neither torch nor da6401 can be imported; the folder of the script is where its imports are looked for.
ALONE = (
    "import pathlib, runpy, sys; sys.modules['torch'] = sys.modules['da6401'] = None; "
    "sys.path[0] = str(pathlib.Path(sys.argv[1]).parent); runpy.run_path(sys.argv.pop(1), run_name='__main__')"
)
Line = dict[str, Any]
ROUNDS = 100  # of the time of a forward pass
AT_ONCE = 32  # images whose logits are computed at once
WIDE = {"UseQDQContribOps": True}  # for 16 bits


@dataclass(frozen=True)
class Row:
    """One way to an answer beside `predict`."""

    what: str
    differ: int  # images with another class
    largest: float  # difference of a probability
    right: int  # images whose class is the true one

    @classmethod
    def of(cls, what: str, expected: Sequence[Line], found: Sequence[Line]) -> Row:
        pairs = list(zip(expected, found, strict=True))
        assert all(list(one["probabilities"]) == list(other["probabilities"]) for one, other in pairs)
        return cls(
            what,
            sum(one["class"] != other["class"] for one, other in pairs),
            max(abs(one["probabilities"][name] - value) for one, other in pairs
                for name, value in other["probabilities"].items()),
            sum(Path(one["image"]).parent.name == other["class"] for one, other in pairs),
        )  # fmt: skip


def lines_of(*words: str) -> list[Line]:
    """What a program prints as JSON lines."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class Eight:
    """A file of 8 bits beside model.onnx, on one split."""

    count: int
    right: int
    right_fp32: int
    lost: int  # images that fp32 has right and 8 bits wrong
    won: int
    differ: int  # images with another class
    error: float  # root mean square difference of the logits
    spread: float  # standard deviation of fp32's logits

    @classmethod
    def of(cls, logits_NK: Tensor, fp32_NK: Tensor, labels_N: Tensor) -> Eight:
        good_N, good_fp32_N = logits_NK.argmax(1) == labels_N, fp32_NK.argmax(1) == labels_N
        return cls(
            len(labels_N), int(good_N.sum()), int(good_fp32_N.sum()), int((good_fp32_N & ~good_N).sum()),
            int((good_N & ~good_fp32_N).sum()), int((logits_NK.argmax(1) != fp32_NK.argmax(1)).sum()),
            float((logits_NK - fp32_NK).square().mean().sqrt()), float(fp32_NK.std()),
        )  # fmt: skip

    @property
    def accuracies(self) -> str:
        return f"{self.right_fp32 / self.count:.4f}, {self.right / self.count:.4f}"


@contextmanager
def otherwise(changes: Mapping[str, Any], *, corrected: bool = True) -> Iterator[None]:
    """Within the block `write_int8` gives these words to onnxruntime, and corrects biases or not."""
    import onnxruntime.quantization as library

    plain = library.quantize_static

    def quantize(*given: Any, **words: Any) -> None:
        extra = {**words["extra_options"], **changes.get("extra_options", {})}
        plain(*given, **{**words, **changes, "extra_options": extra})

    with mock.patch.object(library, "quantize_static", quantize):
        if corrected:
            yield
        else:
            with mock.patch.object(int8, "correct_biases"):
                yield


def ways() -> dict[str, Callable[[], Any]]:
    """What is done otherwise than in the exported file."""
    from onnxruntime.quantization import QuantType

    wide = QuantType.QInt16
    return {
        "as exported": lambda: otherwise({}),
        "biases left as they are": lambda: otherwise({}, corrected=False),
        "weights and activations of 16 bits, biases left": lambda: otherwise(
            {"weight_type": wide, "activation_type": QuantType.QUInt16, "extra_options": WIDE}, corrected=False
        ),
        "activations of 16 bits, biases left": lambda: otherwise(
            {"activation_type": QuantType.QUInt16, "extra_options": WIDE}, corrected=False
        ),
        "one scale for all channels of a layer, biases left": lambda: otherwise(
            {"per_channel": False}, corrected=False
        ),
    }


def logits_of(file: Path, images: ImageSet) -> Tensor:
    answer = onnx_answer(file, 0)
    places = torch.split(torch.arange(len(images.labels_N)), AT_ONCE)
    return torch.cat([answer(images.images_NCHW[some].float().div_(255))[0] for some in places])


def milliseconds(files: Sequence[Path], size: int, count: int) -> list[float]:
    """The median time of a forward pass of so many pictures in one thread, of files that take turns."""
    answers, pixels = [onnx_answer(file, 1) for file in files], torch.rand(count, 3, size, size)
    spent: list[list[float]] = [[] for _ in files]
    for _ in range(ROUNDS):
        for answer, seconds in zip(answers, spent, strict=True):
            started = time.perf_counter()
            answer(pixels)
            seconds.append(time.perf_counter() - started)
    return [1000 * statistics.median(each) for each in spent]


def eight_bits(folder: Path, predictor: Predictor) -> list[str]:
    """What 8 bits cost, of a folder with model.onnx and model.int8.onnx."""
    cfg, names = predictor.cfg, predictor.class_names
    images = Images.of(cfg, names)
    splits = {"validation": images.validation, "test": load_test_data(cfg.data, names)}
    fp32 = {name: logits_of(folder / ONNX, each) for name, each in splits.items()}
    files = (folder / ONNX, folder / INT8)
    megabytes = [file.stat().st_size / 1e6 for file in files]
    times = {count: milliseconds(files, predictor.size, count) for count in (1, 16)}
    rows = []
    for what, way in ways().items():
        with way():
            write_int8(folder, images)
        found = {name: Eight.of(logits_of(folder / INT8, each), fp32[name], each.labels_N)
                 for name, each in splits.items()}  # fmt: skip
        rows.append((what, found))
    first = rows[0][1]
    lost, won = sum(each.lost for each in first.values()), sum(each.won for each in first.values())
    both = sum(each.count for each in first.values())
    passes = [
        f"{count} at once {before:.1f} ms with fp32 and {after:.1f} ms with 8 bits"
        for count, (before, after) in times.items()
    ]
    return [
        f"8 bits: {megabytes[0]:.1f} MB become {megabytes[1]:.1f} MB. A forward pass in one thread, median of "
        f"{ROUNDS}: {', '.join(passes)}. Of {both} images of validation and test together {lost} are lost and {won} "
        f"won (p={mcnemar(lost, won):.2f}, McNemar's exact test).", "",
        "| quantised | accuracy on validation: fp32, 8 bits | on test | another class | error of the logits, in their "
        "standard deviations |",
        "|---|---|---|---|---|",
        *(f"| {what} | {found['validation'].accuracies} | {found['test'].accuracies} | "
          f"{sum(each.differ for each in found.values())} of {both} | "
          f"{', '.join(f'{each.error / each.spread:.3f}' for each in found.values())} |" for what, found in rows), "",
    ]  # fmt: skip


def section(run: Path, root: Path) -> list[str]:
    """A run's part of the page."""
    images = [str(path) for path in sorted((root / "test").rglob("*.jpg"))]
    da6401 = [sys.executable, "-m", "da6401"]
    with tempfile.TemporaryDirectory() as name:
        formats = [word for each in ("onnx", "safetensors", "torchscript") for word in ("--to", each)]
        exported = subprocess.run(
            [*da6401, "export", str(run), "--int8", *formats, "--out", name],
            check=True,
            capture_output=True,
            text=True,
        )
        checked = subprocess.run(
            [sys.executable, "-c", ALONE, f"{name}/check.py"], capture_output=True, text=True, check=False
        )
        expected = lines_of(*da6401, "predict", str(run), *images, "--json")
        alone = [sys.executable, "-c", ALONE, f"{name}/predict.py", *images, "--json"]
        rows = [
            Row.of("`predict.py`, model.onnx", expected, lines_of(*alone)),
            Row.of("`predict.py --int8`, model.int8.onnx", expected, lines_of(*alone, "--int8")),
        ]
        predictor = Predictor.load(run)
        answers = {
            "model.pt2": pt2_answer(Path(name, PT2)),
            "model.torchscript": torchscript_answer(Path(name, TORCHSCRIPT)),
        }
        for what, answer in answers.items():
            found = []
            for image in images:
                pixels = torch.from_numpy(np.stack([predictor.read(Path(image))])).float().div_(255)
                found.append(dict(predictor.answer(answer(pixels)[1][0].detach().numpy())))
            rows.append(Row.of(what, expected, found))
        with served(run) as port:
            rows.append(Row.of("`da6401 serve`", expected, [post(port, Path(image)) for image in images]))
        cost = eight_bits(Path(name), predictor)
    right = sum(Path(line["image"]).parent.name == line["class"] for line in expected)
    return [
        f"## {predictor.cfg.model.name} at {predictor.size} px", "",
        f"{len(images)} test images; `da6401 predict` has {right} of them right.", "",
        "| what answers | another class than `predict` | largest difference of a probability | right |",
        "|---|---|---|---|",
        *(f"| {row.what} | {row.differ} of {len(images)} | {row.largest:.1e} | {row.right} |" for row in rows), "",
        *cost,
        f"`check.py` in the folder ended with exit code {checked.returncode}. What the export said:", "",
        "```", *(line.replace(f"{name}/", "") for line in exported.stdout.splitlines()), "```", "",
    ]  # fmt: skip


def main() -> None:
    """Export, ask everyone, and write the page."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--run", type=Path, required=True, action="append")
    words.add_argument("--root", type=Path, required=True)
    given = words.parse_args()
    sections = [line for run in given.run for line in section(run, given.root)]
    PAGE.write_text("\n".join([*TEXT.format(machine=machine()).splitlines(), "", *sections]).rstrip() + "\n")
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
