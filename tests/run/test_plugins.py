"""Plugins as a user has them: a file, a command, a run folder, and the verbs that read it again."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from da6401.config.own_keys import OWN
from da6401.plugins.registered import LOADED, REGISTERED
from da6401.runs.run_folder import CONFIG, RECEIPT, read_json, read_metrics, read_result, read_yaml
from tests.outcomes import outcome
from tests.sweep.sweeps import open_study
from tests.tiny_runs import SMALL, SMALL_BACKBONE, typed

OWN_MODEL = """
from dataclasses import dataclass

from torch import nn

from da6401.plugins import key, metric, model, optimizer


@dataclass
class Tiny:
    width: int = key(16, "neurons", unit="neurons", low=1, high=512)
    bias: bool = True


@model("tiny", Tiny)
def tiny(cfg, num_classes, image_size):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * image_size**2, cfg.width, bias=cfg.bias), nn.ReLU(),
        nn.Linear(cfg.width, num_classes),
    )


@dataclass
class Heavy:
    lr: float = key(0.02, "learning rate", above=0, high=1)
    nesterov: bool = False


@optimizer("heavy", Heavy)
def heavy(groups, cfg):
    from torch.optim import SGD

    return SGD(groups, lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.nesterov)


@dataclass
class Cost:
    miss: float = key(2.0, "what a miss costs", above=0)


@metric("cost", Cost, words="cost", maximise=False)
def cost(labels, probabilities, cfg):
    return cfg.miss * float((probabilities.argmax(1) != labels).mean())
"""
TINY = (
    *SMALL_BACKBONE, "model=tiny", "model.width=4", "optimizer=heavy", "trainer.metric=cost", "metrics.cost.miss=3",
    "trainer.epochs=1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_stays() -> None:
    assert not LOADED


def write(folder: Path, text: str = OWN_MODEL, name: str = "own_model.py") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return name


def train(folder: Path, *words: str) -> Path:
    code, _, err = typed("train", "--plugin", write(folder), *TINY, *words, "hydra.run.dir=run", cwd=folder)
    assert code == 0, err
    return folder / "run"


def test_a_run_has_the_plugins_keys_its_hash_and_its_text(tmp_path: Path) -> None:
    run = train(tmp_path)
    config = yaml.safe_load((run / CONFIG).read_text())
    assert config["model"] == {"name": "tiny", "width": 4, "bias": True}
    assert config["optimizer"]["name"] == "heavy"
    assert (config["optimizer"]["lr"], config["optimizer"]["nesterov"]) == (0.02, False)
    assert config["metrics"] == {"cost": {"miss": 3.0}}
    sha256 = hashlib.sha256(OWN_MODEL.encode()).hexdigest()
    (recorded,) = read_json(run / RECEIPT)["plugins"]
    assert recorded == {"file": "own_model.py", "sha256": sha256, "copy": f"plugins/{sha256[:8]}-own_model.py"}
    assert (run / recorded["copy"]).read_text() == OWN_MODEL
    result = read_result(run)
    assert result.parameters == 3 * 16 * 16 * 4 + 4 + 4 * 3 + 3
    assert result.val_accuracy is not None
    assert result.val_metrics["cost"] == pytest.approx(3 * (1 - result.val_accuracy))
    assert read_metrics(run)[0]["val_cost"] == result.val_metrics["cost"]
    assert f"plugin {tmp_path / 'own_model.py'} (sha256 {sha256[:12]}): model tiny" in (run / "train.log").read_text()


def test_what_a_plugin_registered_is_gone_after_its_command(tmp_path: Path) -> None:
    train(tmp_path)
    assert not LOADED
    assert not REGISTERED
    assert not any(OWN.values())
    code, _, err = typed("train", "model=tiny", cwd=tmp_path)
    assert code == 2
    assert "model=tiny: no such option of model" in err


@pytest.mark.parametrize(
    ("verb", "more"),
    [("evaluate", ()), ("predict", ("x.png",)), ("export", ()), ("explain", ()), ("reproduce", ())],
)
def test_a_verb_asks_for_the_plugin_of_a_run(tmp_path: Path, verb: str, more: tuple[str, ...]) -> None:
    train(tmp_path)
    code, _, err = typed(verb, "run", *more, cwd=tmp_path)
    assert code == 2
    assert "run: was trained with the plugin own_model.py (sha256 " in err
    assert "remedy: add --plugin own_model.py" in err
    write(tmp_path, OWN_MODEL + "\n# another\n")
    code, _, err = typed(verb, "run", *more, "--plugin", "own_model.py", cwd=tmp_path)
    assert code == 2
    assert "was trained with another text of own_model.py" in err
    assert "add --plugin-changed" in err


def test_evaluate_and_reproduce_with_the_plugin(tmp_path: Path) -> None:
    train(tmp_path)
    code, out, err = typed("reproduce", "run", "--plugin", "own_model.py", cwd=tmp_path)
    assert code == 0, err
    assert "reproduced: identical metrics in all 1 epochs" in out
    write(tmp_path, OWN_MODEL.replace("cfg.miss * float", "100 * cfg.miss * float"))
    code, out, err = typed("evaluate", "run", "--plugin", "own_model.py", "--plugin-changed", cwd=tmp_path)
    assert code == 0, err
    result = read_result(tmp_path / "run")
    assert result.test_accuracy is not None
    assert result.test_metrics["cost"] == pytest.approx(100 * 3 * (1 - result.test_accuracy)), "the new text ran"


def test_an_unfinished_run_goes_on_with_the_same_text_alone(tmp_path: Path) -> None:
    run = train(tmp_path)
    (run / "result.json").unlink()
    words = ("train", "--plugin", write(tmp_path, OWN_MODEL + "\n"), *TINY, "hydra.run.dir=run")
    code, _, err = typed(*words, cwd=tmp_path)
    assert code == 2
    assert "was trained with another text of own_model.py" in err
    code, _, err = typed(*words, "--plugin-changed", cwd=tmp_path)
    assert code == 0, err


LATE = """
from da6401.plugins import callback


@callback("late")
class Late:
    def __init__(self, cfg, out): ...

    def epoch_done(self, epoch, values):
        if epoch == 2:
            values["val_acuracy"]
"""


def test_a_run_goes_on_when_its_plugin_is_mended(tmp_path: Path) -> None:
    words = ("train", *SMALL, "trainer.epochs=3", "callbacks=late", "--plugin", write(tmp_path, LATE))
    code, _, err = typed(*words, "hydra.run.dir=run", cwd=tmp_path)
    assert code == 2
    assert "line 11: raised KeyError: 'val_acuracy'" in err
    assert "then: the same da6401 train with --plugin-changed hydra.run.dir=run goes on with the run" in err
    write(tmp_path, LATE.replace("acuracy", "accuracy"))
    code, out, err = typed(*words, "hydra.run.dir=run", "--plugin-changed", cwd=tmp_path)
    assert code == 0, err
    assert "resuming after epoch 2" in out
    assert typed(*words, "hydra.run.dir=whole", cwd=tmp_path)[0] == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_trial_fails_with_its_plugin_and_is_retried_when_that_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("train", "-m", *SMALL, "study=s", "seed=1,2", "callbacks=late", "--plugin", "own_model.py")
    write(tmp_path, LATE)
    assert typed(*words, cwd=tmp_path)[0] == 1, "no trial was completed"
    study = open_study("s")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"]
    assert "KeyError: 'val_acuracy'" in study.trials[0].user_attrs["reason"]
    assert "goes on with the run" not in study.trials[0].user_attrs["reason"], "a failed trial is not taken up"
    write(tmp_path, LATE.replace("acuracy", "accuracy"))
    code, _, err = typed(*words, "--plugin-changed", "sweep.retry_failed=true", cwd=tmp_path)
    assert code == 0, err
    assert [trial.state.name for trial in open_study("s").trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]


def test_the_keys_of_a_plugin_are_listed_and_checked(tmp_path: Path) -> None:
    write(tmp_path)
    code, out, _ = typed("train", "--plugin=own_model.py", *TINY, "--cfg", "job", cwd=tmp_path)
    assert code == 0
    assert yaml.safe_load(out)["model"] == {"name": "tiny", "width": 4, "bias": True}
    words = ("train", "--plugin", "own_model.py", *SMALL_BACKBONE)
    for wrong, said in (
        ("model.widht=3", "model.widht: no such key (on the command line); did you mean model.width?"),
        ("model.width=0", "model.width=0: must be a whole number in [1, 512] neurons"),
        ("model.bias=3", "model.bias=3: must be true or false"),
        ("model.filters=3", "model.filters: no such key here (on the command line); it belongs to model=cnn"),
        ("optimizer=heavi", "did you mean heavy?"),
    ):
        code, _, err = typed(*words, "model=tiny", wrong, cwd=tmp_path)
        assert code == 2
        assert said in err
    code, _, err = typed(*words, "optimizer.nesterov=true", cwd=tmp_path)
    assert code == 2
    assert "optimizer.nesterov: no such key here (on the command line); it belongs to optimizer=heavy" in err


@pytest.mark.integration
def test_a_sweep_over_a_key_of_a_plugin_and_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*TINY, "model.width=choice(2,5)", "metrics.cost.miss=choice(1.0,2.0)", "study=own")
    code, _, err = typed(
        "train", "-m", "--plugin", write(tmp_path), *words, "hydra.sweeper.n_jobs=2", cwd=tmp_path
    )  # fmt: skip
    assert code == 0, err
    monkeypatch.chdir(tmp_path)
    trials = open_study("own").trials
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    points = {(trial.params["model.width"], trial.params["metrics.cost.miss"]) for trial in trials}
    assert points == {(2, 1.0), (2, 2.0), (5, 1.0), (5, 2.0)}
    for trial in trials:
        run = Path("outputs/sweeps/own") / f"trial-{trial.number}"
        assert json.loads((run / RECEIPT).read_text())["plugins"][0]["file"] == "own_model.py"
        assert trial.values == [read_result(run).val_metrics["cost"]]


def after(words: str, out: str) -> list[str]:
    """The words of the command that follows in the last such line, without `da6401`."""
    return shlex.split(out.rpartition(words)[2].splitlines()[0])[1:]


@pytest.mark.parametrize("folds", ["0", "2"])
def test_the_printed_retraining_command_finds_the_plugin(folds: str, tmp_path: Path) -> None:
    write(tmp_path / "mine")
    words = (*TINY, "model.width=choice(2,5)", "study=own", f"sweep.folds={folds}")
    code, out, err = typed("train", "-m", "--plugin", "mine/own_model.py", *words, cwd=tmp_path)
    assert code == 0, err
    printed = after("retrain it: ", out)
    assert printed[-2:] == ["--plugin", "mine/own_model.py"]
    assert typed(*printed, cwd=tmp_path)[0] == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    best = (tmp_path / "outputs/sweeps/own/best.yaml").read_text()
    shutil.rmtree(tmp_path / "outputs/sweeps/own/best", ignore_errors=True)
    code, _, err = typed(*after("# ", best.partition("\n")[2].partition("\n")[0]), cwd=elsewhere)
    assert code == 0, err
    run = sorted((tmp_path / "outputs/sweeps/own").glob("trial-*/fold-1" if folds == "2" else "trial-0"))[0]
    code, _, err = typed("evaluate", str(run), cwd=elsewhere)
    assert code == 2
    assert f"remedy: add --plugin {tmp_path}/mine/own_model.py, " in err


def test_a_sweep_over_models_of_ours_and_of_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("model=tiny,cnn", "model.width=choice(3,6)", "++model.filters=4", "++model.blocks=2", "study=both")
    code, _, err = typed(
        "train", "-m", "--plugin", write(tmp_path), *SMALL_BACKBONE, "trainer.epochs=1", *words, cwd=tmp_path
    )
    assert code == 0, err
    monkeypatch.chdir(tmp_path)
    found = {(trial.params["model"], trial.params.get("model.width")) for trial in open_study("both").trials}
    assert found == {("tiny", 3), ("tiny", 6), ("cnn", None)}


def test_keys_of_a_plugins_optimizer_are_searched_with_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ("train", "-m", "--plugin", write(tmp_path), *TINY)
    words = ("optimizer=adam,heavy", "optimizer.nesterov=true,false", "study=searched")
    code, _, err = typed(*start, *words, cwd=tmp_path)
    assert code == 0, err
    several = (
        "[{when: 'optimizer=heavy', params: {optimizer.lr: 'interval(0.5,1)', optimizer.nesterov: 'choice(true)'}}, \
{when: 'optimizer=adam', params: {optimizer.lr: 'interval(0.001,0.01)'}}]"
    )
    more = (f"hydra.sweeper.conditional={several}", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=4")
    code, _, err = typed(*start, "optimizer=adam,heavy", *more, "study=conditional", cwd=tmp_path)
    assert code == 0, err
    code, _, err = typed(*start, "optimizer=adam,heavy", "optimizer.nesterov=true", "study=fixed", cwd=tmp_path)
    assert code == 0, err
    monkeypatch.chdir(tmp_path)
    found: dict[str, set[tuple[str, bool | None]]] = {}
    for name in ("searched", "conditional", "fixed"):
        for trial in open_study(name).trials:
            assert trial.state.name == "COMPLETE", (name, trial.params)
            saved = read_yaml(Path("outputs/sweeps", name, f"trial-{trial.number}", CONFIG))["optimizer"]
            assert ("nesterov" in saved) is (saved["name"] == "heavy")
            found.setdefault(name, set()).add((saved["name"], saved.get("nesterov")))
            if name == "conditional":
                assert (saved["lr"] >= 0.5) is (saved["name"] == "heavy")
    assert found["searched"] == {("adam", None), ("heavy", True), ("heavy", False)}
    assert len(open_study("searched").trials) == 3, "nesterov makes no second trial of adam"
    assert found["conditional"] == found["fixed"] == {("adam", None), ("heavy", True)}
    code, _, err = typed(*start, "optimizer=adam,sgd", "optimizer.nesterov=true,false", cwd=tmp_path)
    assert code == 2
    assert "optimizer.nesterov: is searched, but optimizer=" in err


def test_a_study_goes_on_with_the_same_text_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("train", "-m", "--plugin", "own_model.py", *TINY, "model.width=choice(2,5)", "study=own")
    write(tmp_path)
    assert typed(*words, "hydra.sweeper.n_trials=1", cwd=tmp_path)[0] == 0
    write(tmp_path, OWN_MODEL + "\n# another\n")
    code, _, err = typed(*words, cwd=tmp_path)
    assert code == 2
    assert "the study own was trained with own_model.py (sha256 " in err
    code, _, err = typed("train", "-m", *words[4:], "model=cnn", "optimizer=adam", cwd=tmp_path)
    assert code == 2
    code, _, err = typed(*words, "--plugin-changed", cwd=tmp_path)
    assert code == 0, err
    monkeypatch.chdir(tmp_path)
    assert [trial.state.name for trial in open_study("own").trials] == ["COMPLETE"] * 2


def test_tune_gives_its_plugin_to_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def record(words: list[str]) -> int:
        given.append(words)
        return 0

    monkeypatch.setattr("da6401.cli.train", record)
    words = ("tune", "images", "--plugin", "a.py", "--minutes", "2", "--plugin=b.py", "trainer.metric=cost")
    assert typed(*words, cwd=tmp_path)[0] == 0
    assert given[0][-4:] == ["--plugin", "a.py", "--plugin", "b.py"]
    assert "trainer.metric=cost" in given[0]


def test_an_installed_package_is_loaded_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found where packages are installed, and not where a folder is merely on the search path."""
    site = tmp_path / "site"
    (site / "lab_plugins-1.2.dist-info").mkdir(parents=True)
    (site / "lab_plugins-1.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: lab-plugins\nVersion: 1.2\n"
    )
    (site / "lab_plugins-1.2.dist-info" / "entry_points.txt").write_text("[da6401.plugins]\nlab = lab_plugins\n")
    (site / "lab_plugins.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(str(site))
    code, _, err = typed("train", *TINY, "hydra.run.dir=run", cwd=tmp_path)
    assert code == 2, "on the search path alone"
    monkeypatch.setattr("da6401.plugins.loading.sysconfig.get_path", lambda name: str(site))
    code, _, err = typed("train", *TINY, "hydra.run.dir=run", cwd=tmp_path)
    assert code == 0, err
    assert read_json(tmp_path / "run" / RECEIPT)["plugins"] == [{"package": "lab-plugins", "version": "1.2"}]
    assert "plugin lab-plugins 1.2: model tiny" in (tmp_path / "run" / "train.log").read_text()
    assert not LOADED
    code, _, err = typed("evaluate", "run", cwd=tmp_path)
    assert code == 0, err
    monkeypatch.undo()
    (tmp_path / "again").mkdir()
    (tmp_path / "run").rename(tmp_path / "again" / "run")
    code, _, err = typed("reproduce", "run", cwd=tmp_path / "again")
    assert code == 2
    assert "was trained with the package lab-plugins 1.2, which is not installed" in err
