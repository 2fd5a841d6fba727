"""The private names of other packages: that each is there, and what is said when one is gone."""

from __future__ import annotations

import argparse
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import hydra.core.hydra_config
import hydra.core.utils
import hydra.types
import optuna
import pytest
from omegaconf import OmegaConf
from packaging.requirements import Requirement

from benchmarks.house import private_uses, read
from da6401.config import hydra_internals
from da6401.config.private_names import Package
from da6401.errors import UserError
from da6401.models import torch_internals
from da6401.study import optuna_internals
from da6401.study.storage import open_storage, sqlite_address
from da6401.study.trial_store import TrialStore
from da6401.training import wandb_internals

ROOT = Path(__file__).parents[2]
TESTED = (hydra_internals.HYDRA, optuna_internals.OPTUNA, torch_internals.TORCH, wandb_internals.WANDB)


class Without:
    """An object that lacks one attribute of another."""

    def __init__(self, inner: object, name: str) -> None:
        self._inner, self._name = inner, name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(
                f"{type(self._inner).__name__!r} object has no attribute {name!r}", name=name, obj=self
            )
        return getattr(self._inner, name)


# ---- what each function of the adapters does, with the names as they are; and without one ----------------------------


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    storage = open_storage(sqlite_address(tmp_path / "study.db"), minutes=1)
    return optuna.create_study(study_name="s", storage=storage)


def database_of(study: optuna.Study) -> optuna.storages.RDBStorage:
    database: optuna.storages.RDBStorage = optuna_internals.storage_of(study).database  # type: ignore[attr-defined]
    return database


def job(value: object, status: hydra.core.utils.JobStatus) -> hydra.core.utils.JobReturn:
    ended = hydra.core.utils.JobReturn()
    ended.return_value, ended.status = value, status
    return ended


def test_hydras_flags_are_known() -> None:
    parser, flags = hydra_internals.flag_parser()
    assert {"--multirun", "-m", "--config-dir", "--cfg"} <= set(flags)
    assert parser.parse_args(["-m", "a=1"]).overrides == ["a=1"]


def test_hydras_configuration_is_set_within_a_block() -> None:
    instance = hydra.core.hydra_config.HydraConfig.instance()
    before, composed = instance.cfg, OmegaConf.create({"hydra": {"job": {"num": 7}}})
    with hydra_internals.hydra_config(composed):
        assert hydra.core.hydra_config.HydraConfig.get().job.num == 7
    assert instance.cfg is before


def test_the_outcome_of_a_job_is_its_value_or_its_error(capfd: pytest.CaptureFixture[str]) -> None:
    error = ValueError("no")
    assert hydra_internals.outcome_of(job(0.5, hydra.core.utils.JobStatus.COMPLETED)) == 0.5
    assert hydra_internals.outcome_of(job(error, hydra.core.utils.JobStatus.FAILED)) is error
    assert capfd.readouterr() == ("", "")


def test_the_whitelist_is_the_contexts() -> None:
    context = hydra.types.HydraContext(config_loader=None, callbacks=None, execution_whitelist=("a.*",))  # type: ignore[arg-type]
    assert hydra_internals.whitelist_of(context) == ("a.*",)


def test_a_studys_storage_is_the_one_it_was_opened_with() -> None:
    storage = optuna.storages.InMemoryStorage()
    assert optuna_internals.storage_of(optuna.create_study(storage=storage)) is storage
    assert optuna_internals.with_cache(storage) is storage


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.RandomSampler(),
        optuna.samplers.TPESampler(),
        optuna.samplers.NSGAIISampler(),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_sampler_has_generators_that_decide_what_it_draws(sampler: optuna.samplers.BaseSampler) -> None:
    drawn = []
    for _ in range(2):
        study = optuna.create_study(sampler=sampler)
        for generator in optuna_internals.generators_of(sampler):
            generator.seed(3)
        drawn.append(study.ask().suggest_float("x", 0, 1))
    assert drawn[0] == drawn[1]


def test_parameters_are_written_and_known_by_other_choices(study: optuna.Study) -> None:
    store, choices = TrialStore(study), optuna.distributions.CategoricalDistribution([16, 32])
    number = store.create(optuna.create_trial(state=optuna.trial.TrialState.RUNNING)).number
    optuna_internals.write_parameters(database_of(study), [(store.id_of(number), "units", 1.0, choices)])
    assert study.get_trials()[0].params == {"units": 32}
    wider = optuna.distributions.CategoricalDistribution([16, 32, 64])
    optuna_internals.rewrite_distribution(database_of(study), store.study_id, "units", wider)
    assert study.get_trials()[0].distributions == {"units": wider}


def gone(patch: pytest.MonkeyPatch, module: str, name: str) -> None:
    __import__(module)
    patch.delattr(sys.modules[module], name)


def lost_job() -> Any:
    return Without(job(None, hydra.core.utils.JobStatus.COMPLETED), "_return_value")


def wandb_without(name: str) -> types.SimpleNamespace:
    """wandb's module with a running service, without one name."""
    process = types.SimpleNamespace(kill=lambda: None)
    connection = types.SimpleNamespace(_proc=types.SimpleNamespace(_process=process), _cleanup=lambda: None)
    setup = types.SimpleNamespace(_singleton=types.SimpleNamespace(_connection=connection))
    for each in (setup, setup._singleton, connection, connection._proc):
        vars(each).pop(name, None)
    return setup


def leave_without(patch: pytest.MonkeyPatch, name: str) -> None:
    patch.setitem(sys.modules, "wandb.sdk.wandb_setup", wandb_without(name))
    wandb_internals.leave_service()


def test_torchs_operations_are_seen() -> None:
    import torch

    seen: list[str] = []
    with torch_internals.watch_operations(lambda operation, arguments, result: seen.append(str(operation))):
        torch.nn.Linear(2, 3)(torch.zeros(1, 2))
    assert "aten.addmm.default" in seen


RDB, UNIT = "optuna.storages._rdb", optuna.distributions.FloatDistribution(0, 1)
# Each private name, as benchmarks.house lists it; what uses it; and how to let it vanish.
Step = Callable[[pytest.MonkeyPatch, optuna.Study], object]
LOST: dict[str, tuple[Step, ...]] = {
    "hydra._internal.utils.get_args_parser": (
        lambda patch, study: gone(patch, "hydra._internal.utils", "get_args_parser"),
        lambda patch, study: hydra_internals.flag_parser(),
    ),
    "_actions": (
        lambda patch, study: patch.setattr(
            "hydra._internal.utils.get_args_parser", lambda: Without(argparse.ArgumentParser(), "_actions")
        ),
        lambda patch, study: hydra_internals.flag_parser(),
    ),
    "instance": (
        lambda patch, study: patch.setattr("hydra.core.hydra_config.HydraConfig", types.SimpleNamespace()),
        lambda patch, study: hydra_internals.hydra_config(OmegaConf.create()).__enter__(),
    ),
    "_return_value": (lambda patch, study: hydra_internals.outcome_of(lost_job()),),
    "execution_whitelist": (
        lambda patch, study: hydra_internals.whitelist_of(cast(Any, Without(None, "execution_whitelist"))),
    ),
    "_storage": (lambda patch, study: optuna_internals.storage_of(cast(Any, Without(study, "_storage"))),),
    "optuna.samplers._lazy_random_state.LazyRandomState": (
        lambda patch, study: gone(patch, "optuna.samplers._lazy_random_state", "LazyRandomState"),
        lambda patch, study: list(optuna_internals.generators_of(study.sampler)),
    ),
    f"{RDB}.storage._create_scoped_session": (
        lambda patch, study: gone(patch, f"{RDB}.storage", "_create_scoped_session"),
        lambda patch, study: optuna_internals.write_parameters(database_of(study), []),
    ),
    "_set_trial_param_without_commit": (
        lambda patch, study: optuna_internals.write_parameters(
            cast(Any, Without(database_of(study), "_set_trial_param_without_commit")), []
        ),
    ),
    f"{RDB}.models.TrialModel": (
        lambda patch, study: gone(patch, f"{RDB}.models", "TrialModel"),
        lambda patch, study: optuna_internals.rewrite_distribution(database_of(study), 1, "x", UNIT),
    ),
    f"{RDB}.models.TrialParamModel": (
        lambda patch, study: gone(patch, f"{RDB}.models", "TrialParamModel"),
        lambda patch, study: optuna_internals.rewrite_distribution(database_of(study), 1, "x", UNIT),
    ),
    "torch.utils._python_dispatch.TorchDispatchMode": (
        lambda patch, study: gone(patch, "torch.utils._python_dispatch", "TorchDispatchMode"),
        lambda patch, study: torch_internals.watch_operations(lambda operation, arguments, result: None),
    ),
    **{
        name: (lambda patch, study, name=name: leave_without(patch, name),)  # type: ignore[misc]
        for name in ("_singleton", "_connection", "_proc", "_process", "_cleanup")
    },
}


@pytest.mark.parametrize("name", LOST)
def test_a_name_that_is_gone_is_told_with_the_version_to_install(
    name: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    *before, uses_it = LOST[name]
    for step in before:
        step(monkeypatch, study)
    with pytest.raises(UserError) as told:
        uses_it(monkeypatch, study)
    package, installed, missing, allowed, last = re.fullmatch(  # type: ignore[union-attr]
        r"(\S+) (\S+): (.*)\. da6401 uses this private name, as no public one does the same\. It takes (\S+), and is "
        r"tested with \S+: pip install '(\S+)'",
        str(told.value),
    ).groups()
    tested = next(each for each in TESTED if each.package == package)
    assert f"'{name.rpartition('.')[2]}'" in missing
    assert (allowed, last) == (f"{tested.package}{tested.versions}", f"{tested.package}=={tested.last}")
    assert installed


def test_every_private_name_is_listed_here() -> None:
    """Those of the adapters, and there are no others."""
    package = read(ROOT)
    assert private_uses(package) == []
    used = {name for _, name in private_uses(package, in_adapters=True)}
    assert used == {*LOST}


@pytest.mark.parametrize("tested", TESTED, ids=lambda tested: tested.package)
def test_the_versions_are_those_of_the_installation(tested: Package) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (line,) = re.findall(rf'"({re.escape(tested.package)}[<>=][^"]*)"', text)
    assert Requirement(line).specifier == Requirement(tested.package + tested.versions).specifier
    assert Requirement(line).specifier.contains(tested.last, prereleases=True)
