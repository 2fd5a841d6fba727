"""The folder of a run as an object: its content as values and dataframes.

A notebook shows it as a small table with a chart. Each value is read anew when it is asked for, also during the run.
"""

# N images, K classes, S side in px

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from da6401.config.schema import RunConfig
from da6401.config.splits import VALIDATION, ScoredSplit
from da6401.errors import RunError
from da6401.notebook.notebook_html import card, chart, number, table
from da6401.redact import safe
from da6401.runs.looks import Look, read_looks, times
from da6401.runs.named_folders import folder_of, is_folder_there
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import (
    CONFIG,
    METRICS,
    RESULT,
    RunResult,
    read_metrics,
    read_result,
)

if TYPE_CHECKING:
    from da6401.commands.predict import Images
    from da6401.models.ensemble import Ensemble
    from da6401.models.stages import StagedModel


def load_run(folder: Path | str) -> Run:
    """A run, finished or not: its folder, a name below outputs/, or "latest".

    Raises:
        RunError: it holds no run.
    """
    folder = Path(folder)
    if not (is_folder_there(folder) or folder.is_absolute()):
        folder = folder_of(folder)
    if not (is_folder_there(folder) and (folder / CONFIG).is_file()):
        raise RunError(f"{folder}: holds no run (no {CONFIG}); name a run folder")
    return Run(folder)


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not."""

    folder: Path

    @property
    def config(self) -> RunConfig:
        """The whole configuration, typed. Raises RunError or ConfigError where it is damaged."""
        from da6401.config.compose import saved_config
        from da6401.plugins.needed import objects_of

        with objects_of(self.folder):
            return saved_config(self.folder / CONFIG)

    @property
    def result(self) -> RunResult:
        """How it ended and what it reached. Raises RunError while it is unfinished."""
        return read_result(self.folder)

    def metrics(self) -> pd.DataFrame:
        """One row an epoch (the index, from 1): losses in nats, accuracies 0..1, lr, images_per_second, seconds."""
        frame = pd.DataFrame(read_metrics(self.folder))
        return frame.astype({"epoch": int}).set_index("epoch") if len(frame) else frame

    def predictions(self, split: ScoredSplit = VALIDATION) -> pd.DataFrame:
        """One row an image: its name, true class, predicted class, confidence 0..1, correct, and p(<class>) each.

        Raises:
            RunError: the run did not complete; for "test", it was not evaluated.
        """
        answers = read_predictions(self.folder / f"{split}.csv")
        names = answers.class_names
        frame = pd.DataFrame({
            "image": answers.names,
            "class": [names[index] for index in answers.labels_N],
            "predicted": [names[index] for index in answers.predicted],
            "confidence": answers.confidence,
            "correct": answers.predicted == answers.labels_N,
        })  # fmt: skip
        return pd.concat([frame, _columns(answers.probabilities_NK, names)], axis=1)

    def predict(self, images: Images) -> pd.DataFrame:
        """`da6401 predict`: one row a picture: image, class, probability 0..1, and p(<class>) each.

        Args:
            images: one or several of: files, folders and patterns; pictures of Pillow's; uint8 arrays (H, W, 3). Files
                of the run's own test split are recorded as a look at it.

        Raises:
            UserError: a picture or the run cannot be read.
        """
        from da6401.commands.predict import probabilities_of

        names, class_names, probabilities_NK = probabilities_of(self.folder, images)
        frame = pd.DataFrame({
            "image": names,
            "class": [class_names[index] for index in probabilities_NK.argmax(1)],
            "probability": probabilities_NK.max(1),
        })  # fmt: skip
        return pd.concat([frame, _columns(probabilities_NK, class_names)], axis=1)

    def model(self) -> tuple[StagedModel | Ensemble, list[str]]:
        """The best model, in eval mode on the CPU, and its class names in the order of its logits.

        It takes RGB images as float (N, 3, S, S) in 0..1, S the config's data.image_size.
        """
        from da6401.training.trained_model import load_model

        model, _, class_names = load_model(self.folder)
        return model, class_names

    def evaluate(self) -> RunResult:
        """`da6401 evaluate`: the best model on the test split, once; from then on the recorded value."""
        from da6401.commands.evaluate import evaluate_run

        evaluate_run(self.folder)
        return self.result

    @property
    def looks(self) -> list[Look]:
        """The looks at the test split for this run, in order: time (UTC), verb, purpose."""
        return read_looks(self.folder)

    def explain(self, split: ScoredSplit = VALIDATION) -> list[Path]:
        """`da6401 explain`: the pictures of what the model sees, as PNG files. "test" is recorded as a look at it."""
        from da6401.commands.explain.explain_run import explain_run

        explain_run(self.folder, split=split)
        return sorted((self.folder / "explain").glob("*.png"))

    def report(self) -> Path:
        """`da6401 report`: one self-contained HTML page."""
        return write_report(self.folder)

    def _rows(self) -> dict[str, str]:
        """The rows of a notebook's table: the result, or the number of epochs of an unfinished run."""
        if not (self.folder / RESULT).exists():
            return {"status": "unfinished", "epochs": str(len(self._epochs()))}
        result = self.result
        rows = {
            "status": result.status,
            "reason": result.reason.strip().rpartition("\n")[2],
            "validation accuracy": number(result.val_accuracy),
            "validation loss": number(result.val_loss),
            "test accuracy": number(result.test_accuracy),
            "test split looked at": times(len(looks)) if (looks := self.looks) else "",
            "best epoch": f"{result.best_epoch} of {result.epochs_run}" if result.best_epoch else "",
            "parameters": f"{result.parameters:,}",
            "multiply-accumulates": f"{result.macs:,}",
            "seconds": f"{result.seconds:.1f}",
        }
        return {name: value for name, value in rows.items() if value}

    def _epochs(self) -> list[dict[str, float]]:
        return read_metrics(self.folder) if (self.folder / METRICS).exists() else []

    def __repr__(self) -> str:
        rows = self._rows()
        parts = [
            rows["status"],
            *(f"{name} {rows[name]}" for name in ("validation accuracy", "epochs") if name in rows),
        ]
        return f"Run('{safe(self.folder)}': {', '.join(parts)})"

    def _repr_html_(self) -> str:
        epochs = self._epochs()
        curves = {
            name: [line[key] for line in epochs]
            for name, key in (("training", "train_accuracy"), ("validation", "val_accuracy"))
        }
        rows = pd.Series(self._rows(), dtype=object).to_frame()
        return card(
            f"run {self.folder}",
            table(rows, header=False),
            chart(curves, points=[], what="accuracy", over="epoch"),
        )


def _columns(probabilities_NK: npt.NDArray[np.float32], class_names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(probabilities_NK, columns=[f"p({name})" for name in class_names])


def write_report(folder: Path, *, storage: str | None = None) -> Path:
    """`da6401 report` for a folder: the page."""
    from da6401.report.page import report

    report([folder], out=None, storage=storage, watch=False, port=0)
    return folder / "report.html"
