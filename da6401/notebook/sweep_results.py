"""The folder of a sweep as an object: its study, its trials' runs and the best of them.

A notebook shows it as a small table with a chart. Each value is read anew when it is asked for, also during the sweep.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from da6401.errors import RunError
from da6401.notebook.notebook_html import card, chart, table
from da6401.notebook.run_results import Run, load_run, write_report
from da6401.redact import safe
from da6401.report.assignment import ASSIGNMENT_PAGE
from da6401.report.chosen_run import chosen_run
from da6401.runs.named_folders import folder_of, is_folder_there
from da6401.runs.run_folder import CONFIG, DATABASE, SUMMARY, read_json, read_yaml
from da6401.runs.trial_folders import found_runs, order, trial_folder
from da6401.study.objective import ATTRIBUTE, Objective

if TYPE_CHECKING:
    import optuna

SHOWN_TRIALS = 10  # rows of a sweep in a notebook: the best


def load_sweep(folder: Path | str, *, storage: str | None = None) -> Sweep:
    """A sweep, finished or not: its folder, the name of its study, or "latest".

    Args:
        storage: the study's database URL, where it is not in the folder.

    Raises:
        RunError: it holds no sweep.
    """
    folder = Path(folder)
    if not (is_folder_there(folder) or folder.is_absolute()):
        folder = folder_of(folder)
    if not is_folder_there(folder) or not any((folder / name).is_file() for name in (SUMMARY, DATABASE)):
        raise RunError(f"{folder}: holds no sweep (neither {SUMMARY} nor {DATABASE}); name the folder of a study")
    return Sweep(folder, storage=storage)


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
        """The run that the sweep stands for: what it hands over, its confirmed winner, or its best trial so far.

        Raises:
            RunError: no trial was completed.
        """
        return load_run(chosen_run(self.folder, self.storage).folder)

    def runs(self) -> list[Run]:
        """The trials' runs, by number; trials that never began have none."""
        found = [run for run in found_runs(self.folder) if (run / CONFIG).is_file()]
        return [Run(run) for run in sorted(found, key=lambda run: order(run, self.folder))]

    def report(self) -> Path:
        """`da6401 report`: one self-contained HTML page."""
        return write_report(self.folder, storage=self.storage)

    def assignment(self, pretrained: Sweep | Run | None = None) -> Path:
        """`da6401 report --assignment`: one page in the order of the assignment's questions.

        Args:
            pretrained: the sweep or run of Part B; without it this sweep answers what it can.
        """
        from da6401.report.page import report

        folders = [self.folder] if pretrained is None else [self.folder, pretrained.folder]
        report(folders, out=None, storage=self.storage, watch=False, port=0, assignment=True)
        return self.folder / ASSIGNMENT_PAGE

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
