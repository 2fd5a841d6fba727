"""The folder of a run, and of a sweep, as objects: their content as values and dataframes.

A notebook shows them as a small table with a chart. Each value is read anew when it is asked for, also while the run
or the sweep is going on.
"""

# N images, K classes, S side in px

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from da6401.config.schema import RunConfig
from da6401.config.splits import VALIDATION, ScoredSplit
from da6401.errors import RunError
from da6401.notebook.notebook_html import card, chart, number, table
from da6401.redact import safe
from da6401.runs.looks import Look, read_looks, times
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import (
    CONFIG,
    DATABASE,
    METRICS,
    RESULT,
    SUMMARY,
    RunResult,
    read_json,
    read_metrics,
    read_result,
    read_yaml,
)
from da6401.runs.trial_folders import DEEPEST, found_runs, order, trial_folder
from da6401.study.objective import ATTRIBUTE, Objective

if TYPE_CHECKING:
    import optuna

    from da6401.models.stages import StagedModel

SHOWN_TRIALS = 10  # rows of a sweep in a notebook: the best


def load_run(folder: Path | str) -> Run:
    """A run folder, finished or not.

    Raises:
        RunError: it holds no run.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise RunError(f"{folder}: holds no run (no {CONFIG}); name a run folder")
    return Run(folder)


def load_sweep(folder: Path | str, *, storage: str | None = None) -> Sweep:
    """A sweep's folder, finished or not.

    Args:
        storage: the study's database URL, where it is not in the folder.

    Raises:
        RunError: it holds no sweep.
    """
    folder = Path(folder)
    if not (folder / SUMMARY).is_file() and not (folder / DATABASE).is_file():
        raise RunError(f"{folder}: holds no sweep (neither {SUMMARY} nor {DATABASE}); name the folder of a study")
    return Sweep(folder, storage=storage)


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not."""

    folder: Path

    @property
    def config(self) -> RunConfig:
        """The whole configuration, typed. Raises RunError or ConfigError where it is damaged."""
        from da6401.config.compose import saved_config

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
        probabilities = pd.DataFrame(answers.probabilities_NK, columns=[f"p({name})" for name in names])
        return pd.concat([frame, probabilities], axis=1)

    def model(self) -> tuple[StagedModel, list[str]]:
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
        return _report(self.folder)

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


@dataclass(frozen=True)
class Sweep:
    """A study's folder: its trials' runs, and how they compare."""

    folder: Path
    storage: str | None = None  # the study's database URL, where it is not in the folder

    @property
    def summary(self) -> dict[str, Any]:
        """sweep.json: counts by state, the best trials, seconds. Raises RunError before the sweep's end."""
        return read_json(self.folder / SUMMARY)

    def study(self) -> optuna.Study:
        """The Optuna study, for its plots and its dashboard.

        Raises:
            RunError: there is no database, or no study in it.
        """
        import optuna

        from da6401.study.storage import is_shared, open_storage, sqlite_address

        if self.storage is None and not (self.folder / DATABASE).is_file():
            raise RunError(
                f"{self.folder / DATABASE}: not found; name the study's database: load_sweep(..., storage=URL)"
            )
        address = self.storage or sqlite_address(self.folder / DATABASE)
        try:
            storage = open_storage(address, minutes=0) if is_shared(address) else address
            names = optuna.study.get_all_study_names(storage)
            name = names[0] if len(names) == 1 else self.folder.name  # a folder that has moved may bear another
            return optuna.load_study(study_name=name, storage=storage)
        except Exception as error:  # databases' own errors have no common base
            reason = safe(str(error).partition("\n")[0])
            raise RunError(f"{self.folder}: its study cannot be opened ({reason}); check storage=") from error

    def trials(self) -> pd.DataFrame:
        """One row a trial (the index, its number): state, value, seconds, folder, and each searched key.

        With several objectives each has a column of its name, such as val_accuracy, instead of value.
        """
        return self._trials(self.study())

    def _trials(self, study: optuna.Study) -> pd.DataFrame:
        objective = self._objective(study)
        columns = ["value"] if objective.alone is not None else list(objective.names)
        rows = [
            {"number": trial.number, "state": trial.state.name.lower()}
            | dict(zip(columns, trial.values or [None] * len(columns), strict=True))
            | {"seconds": trial.duration.total_seconds() if trial.duration else None}
            | {"folder": str(trial_folder(self.folder, trial)), **trial.params}
            for trial in study.get_trials(deepcopy=False)
        ]
        return pd.DataFrame(rows).set_index("number") if rows else pd.DataFrame()

    def _objective(self, study: optuna.Study) -> Objective:
        """What the study optimises; for a study of an older version, from the config of one of its trials."""
        configs = (run.folder / CONFIG for run in self.runs())
        config = {} if ATTRIBUTE in study.user_attrs else next(map(read_yaml, configs), {})
        return Objective.of_study(study.user_attrs, [each.name.lower() for each in study.directions], config)

    @property
    def best(self) -> Run:
        """The winner's run: the confirmed one where the sweep confirmed, the first of several metrics' Pareto set.

        Raises:
            RunError: no trial was completed, or the sweep has not ended.
        """
        winner = self.summary["winner"]
        if winner is None:
            raise RunError(f"{self.folder}: no trial was completed; see trials()")
        parts = Path(winner).parts  # as the sweep saw it: the folder may have moved since
        inside = [self.folder.joinpath(*parts[-length:]) for length in range(DEEPEST, 0, -1)]
        return load_run(next((run for run in inside if run.is_dir()), inside[-1]))

    def runs(self) -> list[Run]:
        """The trials' runs, by number; trials that never began have none."""
        found = [run for run in found_runs(self.folder) if (run / CONFIG).is_file()]
        return [Run(run) for run in sorted(found, key=lambda run: order(run, self.folder))]

    def report(self) -> Path:
        """`da6401 report`: one self-contained HTML page."""
        return _report(self.folder, storage=self.storage)

    def __repr__(self) -> str:
        if not self._has_begun():
            return f"Sweep('{safe(self.folder)}': not begun)"
        trials = self.trials()
        states = trials["state"].value_counts().items() if len(trials) else []
        parts = [*(f"{count} {state}" for state, count in states), *self._winner()]
        return f"Sweep('{safe(self.folder)}': {', '.join(parts) or 'no trials'})"

    def _has_begun(self) -> bool:
        """Whether anything is there: a dry run (sweep.dry_run=true) makes no study."""
        return self.storage is not None or self.folder.exists()

    def _winner(self) -> list[str]:
        if not (self.folder / SUMMARY).exists() or self.summary["winner"] is None:
            return []
        best, reached = self.best, self.summary["best"][0]
        objective = self._objective(self.study())
        confirmed = self.summary.get("confirmed")
        value = confirmed[0]["mean"] if confirmed else reached.get("mean", reached["value"])
        return [f"best {best.folder.name}, {objective.text(value if isinstance(value, list) else [value])}"]

    def _repr_html_(self) -> str:
        if not self._has_begun():
            return card(f"sweep {self.folder}: not begun")
        study = self.study()
        done, objective, trials = study.get_trials(deepcopy=False), self._objective(study), self._trials(study)
        picture = ""
        if objective.alone is not None and len(trials):
            pairs = objective.so_far(done)
            curves = {"trial": [trial.values[0] for trial, _ in pairs], "best so far": [best for _, best in pairs]}
            picture = chart(curves, points=["trial"], what=objective.alone.name, over="completed trials")
        ranked = trials.loc[[trial.number for trial in objective.ranked(done)]].rename_axis("trial")
        top = ranked.drop(columns="folder", errors="ignore").head(SHOWN_TRIALS)
        title = "; ".join([f"sweep {self.folder}: {len(top)} of {len(trials)} trials", *self._winner()])
        return card(title, picture, table(top))


def _report(folder: Path, *, storage: str | None = None) -> Path:
    from da6401.report.page import report

    report([folder], out=None, storage=storage, watch=False, port=0)
    return folder / "report.html"
