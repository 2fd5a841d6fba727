"""python -m benchmarks.export --run RUN --root DIR: does every exported file answer as `da6401 predict`?

RUN was trained on DIR, a folder with a test split. All its test images are answered one by one: by `predict`, by
predict.py in a Python that can import neither torch nor da6401, by the other formats, and by the server. (`predict`
records a look at the test split in RUN.) The page is benchmarks/export.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.serving import machine, post, served
from da6401.commands.exporting.onnx_files import PT2, pt2_answer
from da6401.commands.exporting.weights_files import TORCHSCRIPT, torchscript_answer
from da6401.commands.predictor import Predictor

PAGE = Path(__file__).with_suffix(".md")
# Neither torch nor da6401 can be imported; the folder of the script is where its imports are looked for.
ALONE = (
    "import pathlib, runpy, sys; sys.modules['torch'] = sys.modules['da6401'] = None; "
    "sys.path[0] = str(pathlib.Path(sys.argv[1]).parent); runpy.run_path(sys.argv.pop(1), run_name='__main__')"
)
Line = dict[str, Any]


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


def main() -> None:
    """Export, ask everyone, and write the page."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--run", type=Path, required=True)
    words.add_argument("--root", type=Path, required=True)
    given = words.parse_args()
    images = [str(path) for path in sorted((given.root / "test").rglob("*.jpg"))]
    da6401 = [sys.executable, "-m", "da6401"]
    with tempfile.TemporaryDirectory() as name:
        formats = [word for each in ("onnx", "safetensors", "torchscript") for word in ("--to", each)]
        exported = subprocess.run(
            [*da6401, "export", str(given.run), "--int8", *formats, "--out", name],
            check=True,
            capture_output=True,
            text=True,
        )
        checked = subprocess.run(
            [sys.executable, "-c", ALONE, f"{name}/check.py"], capture_output=True, text=True, check=False
        )
        expected = lines_of(*da6401, "predict", str(given.run), *images, "--json")
        alone = [sys.executable, "-c", ALONE, f"{name}/predict.py", *images, "--json"]
        rows = [
            Row.of("`predict.py`, model.onnx", expected, lines_of(*alone)),
            Row.of("`predict.py --int8`, model.int8.onnx", expected, lines_of(*alone, "--int8")),
        ]
        predictor = Predictor.load(given.run)
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
        with served(given.run) as port:
            rows.append(Row.of("`da6401 serve`", expected, [post(port, Path(image)) for image in images]))
    size = predictor.size
    right = sum(Path(line["image"]).parent.name == line["class"] for line in expected)
    lines = [
        "# Does every exported file answer as predict?", "",
        f"Written by `python -m benchmarks.export --run RUN --root DIR`: a {predictor.cfg.model.name} at {size} px, "
        f"{len(images)} test images, {machine()}. `da6401 predict` has {right} of them right.", "",
        "| what answers | another class than `predict` | largest difference of a probability | right |",
        "|---|---|---|---|",
        *(f"| {row.what} | {row.differ} of {len(images)} | {row.largest:.1e} | {row.right} |" for row in rows), "",
        f"`check.py` in the folder ended with exit code {checked.returncode}. What the export said:", "",
        "```", *(line.replace(f"{name}/", "") for line in exported.stdout.splitlines()), "```",
    ]  # fmt: skip
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
