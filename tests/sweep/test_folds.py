"""sweep.folds: k-fold sweeps end to end, on tiny data with tiny networks."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_1samp

from da6401.cli import main
from da6401.metrics.paired import corrected, signed_rank
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import VALIDATION_CSV, read_metrics, read_result, read_yaml
from da6401.training import loop, run
from tests.outcomes import page_data
from tests.sweep.sweeps import FOLDER, SWEEP, N, folder, states, summary, sweep, trials
from tests.tiny_runs import typed

SPACE = "optimizer.lr=choice(0.0001,0.003,0.02)"
THREE = ("sweep.folds=3", "hydra/sweeper/sampler=grid", SPACE, "hydra/sweeper/pruner=none", "data.images_per_class=20")


def reached(runs: Iterable[Path]) -> list[float]:
    """The accuracy of each."""
    return [read_result(each).val_accuracy or 0.0 for each in runs]


def names(run: Path) -> set[str]:
    """The validation images of a run."""
    return set(read_predictions(run / VALIDATION_CSV).names)


def test_a_trial_is_the_mean_of_its_folds_and_is_tested_against_the_winner(
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = sweep(*THREE, "sweep.confirm_top=1", "sweep.confirm_seeds=1", "sweep.keep_checkpoints=1")
    out = capsys.readouterr().out
    values = {}
    for trial in study.trials:
        runs = sorted(folder(trial.number).glob("fold-*"))
        assert [each.name for each in runs] == ["fold-1", "fold-2", "fold-3"]
        assert [read_yaml(each / "config.yaml")["data"]["fold"] for each in runs] == ["1/3", "2/3", "3/3"]
        values[trial.number] = reached(runs)
        assert trial.value == pytest.approx(statistics.fmean(values[trial.number]), abs=1e-15)
        reported = list(trial.intermediate_values.values())
        means = [statistics.fmean(values[trial.number][:count]) for count in (1, 2, 3)]
        assert reported == pytest.approx(means, abs=1e-15)
        # Disjoint, and together every image of train and validation; the test split is in none.
        held_out = [names(each) for each in runs]
        assert sum(map(len, held_out)) == len(set.union(*held_out)) == 60 == len(names(folder(trial.number)))
        result = read_result(folder(trial.number))
        assert result.val_accuracy == trial.value
        assert result.val_metrics["kappa"] == pytest.approx(
            statistics.fmean(read_result(each).val_metrics["kappa"] or 0 for each in runs)
        )
        lines = read_metrics(folder(trial.number))
        assert lines[0]["val_loss"] == pytest.approx(
            statistics.fmean(read_metrics(each)[0]["val_loss"] for each in runs)
        )
    best = study.best_trial.number
    content = {each["trial"]: each for each in summary()["folds"]["trials"]}
    others = [number for number in values if number != best]
    raised = corrected([signed_rank([a - b for a, b in zip(values[best], values[n], strict=True)]) for n in others])
    assert [content[number]["p"] for number in others] == raised
    assert content[best]["p"] is None
    for number, each in content.items():
        assert each["values"] == values[number]
        assert each["deviation"] == pytest.approx(statistics.stdev(values[number]))
    assert summary()["not_told_from_best"] == others  # three folds can show nothing
    assert summary()["epochs_run"] == 3 * len(study.trials)
    flat = " ".join(out.split())
    assert "sd of 3 folds" in flat
    assert "the least p that 3 folds can give is 0.500: no difference can show; sweep.folds=7 could" in flat
    (confirmed,), (again,) = summary()["confirmed"], (FOLDER / "confirm").iterdir()
    assert confirmed["values"] == [pytest.approx(statistics.fmean(reached(again.glob("fold-*"))))]
    assert len(list(again.glob("fold-*"))) == 3
    kept = {path.parts[-4] for path in FOLDER.glob("trial-*/fold-*/checkpoints/best.pt")}
    assert kept == {f"trial-{best}"}
    assert main(["report", str(FOLDER)]) == 0
    page = (FOLDER / "report.html").read_text(encoding="utf-8")
    assert "sd of 3 folds" in page
    assert "cannot be told from the winner over 3 folds" in page
    capsys.readouterr()
    assert main(["compare", str(folder(0)), str(folder(1))]) == 0
    line = next(
        each for each in capsys.readouterr().out.splitlines() if each.startswith("validation accuracy, A - B: ")
    )
    gaps = [a - b for a, b in zip(values[0], values[1], strict=True)]
    assert line.startswith(f"validation accuracy, A - B: {statistics.fmean(gaps):+.4f} (95% interval ")
    low, high = ttest_1samp(gaps, 0).confidence_interval()
    assert f"{low:+.4f} to {high:+.4f}, mean over 3 folds, n = 60); Wilcoxon's signed-rank test, p = " in line
    for number in values:
        assert main(["report", str(folder(number))]) == 0
        data = json.dumps(page_data(folder(number) / "report.html"))
        assert "all folds together, n = 60" in data
        assert "its metrics are means over the folds" in data
        assert "On the validation split" not in data
        assert f"da6401 reproduce {folder(number)}" in data


def test_best_yaml_trains_the_winner_on_the_ordinary_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(*THREE, N + "1")
    command = next(line for line in capsys.readouterr().out.split("retrain it: ")[1:])
    assert main(["reproduce", str(folder(0))]) == 0  # each fold
    assert sorted(path.name[:12] for path in folder(0).glob("fold-*-again-*")) == [f"fold-{n}-again" for n in (1, 2, 3)]
    best = read_yaml(FOLDER / "best.yaml")
    assert best["data"]["fold"] == ""
    words = " ".join(command.split()).replace("da6401 train ", "").split()
    assert words[0] == "--config-path"
    assert main(["report", str(folder(0))]) == 0
    (part,) = page_data(folder(0) / "report.html")["parts"]
    (block,) = [each for each in part["sections"][0]["blocks"] if each["kind"] == "command"]
    assert block["text"].startswith(f"da6401 train --config-path {FOLDER.absolute()} --config-name best hydra.run.dir=")
    code, _, err = typed("train", *words, cwd=tmp_path)
    assert code == 0, err
    assert read_yaml(FOLDER / "best/config.yaml")["data"]["fold"] == ""
    assert len(names(FOLDER / "best")) == 12  # a fifth of 60
    assert main(["evaluate", str(FOLDER / "best")]) == 0
    assert main(["evaluate", str(folder(0))]) == 2
    assert "is a trial of 3 folds and has no network of its own" in capsys.readouterr().err


def test_a_sweep_that_is_stopped_goes_on_in_the_fold_that_it_was_in(monkeypatch: pytest.MonkeyPatch) -> None:
    two = (
        "sweep.folds=2",
        "hydra/sweeper/sampler=grid",
        "hydra/sweeper/pruner=none",
        "optimizer.lr=choice(0.001,0.02)",
    )
    whole = [trial.value for trial in sweep(*two, name="whole").trials]
    began: list[tuple[str, float]] = []
    stop_at = 4

    class Killed(BaseException):
        pass

    def fit(setup: Any, *rest: Any, **named: Any) -> None:
        began.append((setup.cfg.data.fold, setup.cfg.optimizer.lr))
        if len(began) == stop_at:
            raise Killed
        loop.fit(setup, *rest, **named)

    monkeypatch.setattr(run, "fit", fit)
    with pytest.raises(Killed):
        main([*SWEEP, *two, "study=cut"])
    assert began[-1] == ("2/2", 0.02)
    assert (FOLDER.with_name("cut") / "trial-1/fold-1/result.json").exists()
    assert not (FOLDER.with_name("cut") / "trial-1/result.json").exists()
    began.clear()
    stop_at = 0
    study = sweep(*two, name="cut")
    assert began == [("2/2", 0.02)]  # no finished fold is trained again
    assert [trial.value for trial in study.trials if trial.value is not None] == whole


def test_a_trial_is_pruned_between_folds_by_its_mean_so_far() -> None:
    pruner = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.startup_trials=1",
              "hydra.sweeper.pruner.warmup_epochs=0")  # fmt: skip
    rates = "optimizer.lr=choice(0.02,0.00001)"
    study = sweep("sweep.folds=4", *pruner, rates, "hydra/sweeper/sampler=grid", "data.images_per_class=20",
                  "trainer.epochs=4")  # fmt: skip
    assert states() == ["COMPLETE", "PRUNED"]
    poor = study.trials[1]
    done = len(poor.intermediate_values)
    assert 1 <= done < 4
    assert len(list(folder(1).glob("fold-*"))) == done
    result = read_result(folder(1))
    assert (result.status, result.reason.startswith(f"pruned after fold {done} with val_accuracy")) == ("pruned", True)
    epochs = 4 * (4 + done)
    assert main(["report", str(FOLDER)]) == 0
    blocks = [
        b for part in page_data(FOLDER / "report.html")["parts"] for each in part["sections"] for b in each["blocks"]
    ]
    (table,) = [block for block in blocks if block["kind"] == "trials"]
    assert [row["epochs"] for row in table["trials"]] == [16, 4 * done]
    assert main(["report", str(FOLDER), "--assignment", "--out", "assignment.html"]) == 0
    text = Path("assignment.html").read_text(encoding="utf-8")
    assert f"; {epochs} epochs in " in text
    assert f"All trials in full would have been 32 epochs: {32 - epochs} were saved." in text


def test_seeds_give_more_pairs_and_enough_folds_can_show_a_difference() -> None:
    sweep("sweep.folds=4", "optimizer.lr=choice(0.02,0.00001)", "seed=choice(0,1)", "hydra/sweeper/sampler=grid",
          "data.images_per_class=20", "trainer.epochs=4", "hydra/sweeper/pruner=none")  # fmt: skip
    content = summary()["folds"]["trials"]
    tested = [each["p"] for each in content if each["p"] is not None]
    assert len(content) == 4
    assert len(tested) == 2  # both seeds of the other configuration
    assert tested[0] == tested[1] == pytest.approx(2 ** (1 - 8)) or tested[0] < 0.05
    assert summary()["not_told_from_best"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sweep.folds=1",), "sweep.folds=1: one part alone leaves nothing to train on"),
        (("sweep.folds=3", "sweep.strategy=race", "sweep.minutes=1"), "a race compares short trainings"),
        (("sweep.folds=3", "data.fold=1/3"), "sweep.folds=3 trains every fold; leave data.fold out"),
        (("data.fold=4/3",), "data.fold=4/3: must be I/K with K from 2 on and I from 1 to K"),
        (("data.fold=first",), "data.fold='first': must be such as 2/5"),
    ],
)
def test_what_contradicts_folds_is_refused(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SWEEP, SPACE, *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_study_has_one_number_of_folds(capsys: pytest.CaptureFixture[str]) -> None:
    sweep(*THREE, N + "1")
    for other in ("sweep.folds=4", "sweep.folds=0"):
        sweep(*THREE, other, N + "2", code=2)
        assert "the trials of the study s have sweep.folds=3" in " ".join(capsys.readouterr().err.split())
    assert len(trials()) == 1
