"""Search spaces as they are typed: their domains, conditions, points, and what is told of a wrong one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from da6401.config.command_line import check_command_line
from da6401.config.domains import Choices, Interval, domain_of, written
from da6401.config.read_space import read_space
from da6401.config.search_path import SearchPath
from da6401.config.search_space import Point, SearchSpace, key_of, parse_override
from da6401.config.sweep_space import value_check
from da6401.errors import ConfigError
from da6401.sweep.suggest import distribution_of, next_point, total_trials

KNOWN = {"model": "cnn", "optimizer": "adamw", "model.dropout": 0.0, "model.batch_norm": True, "optimizer.lr": 1e-3}
OPTIONS = {"model": ["cnn", "resnet18"], "optimizer": ["adam", "adamw", "sgd"]}


def told(*arguments: str, conditional: Any = (), known: Mapping[str, Any] = KNOWN) -> tuple[SearchSpace, list[str]]:
    problems: list[str] = []
    space = read_space(
        {}, conditional, arguments, known=known, options=OPTIONS, problems=problems,
        value_problems=value_check(OPTIONS), lenient=False,
    )  # fmt: skip
    return space, problems


def space_of(*arguments: str, conditional: Any = ()) -> SearchSpace:
    space, problems = told(*arguments, conditional=conditional)
    assert not problems
    return space


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seed=0,1", (0, 1)),
        ("seed=choice(1,1,2)", (1, 2)),
        ("seed=choice(choice(1,2),3)", (1, 2, 3)),
        ("seed=sort(3,1,2)", (1, 2, 3)),
        ("seed=range(1,4)", (1, 2, 3)),
        ("seed=range(6,0,-2)", (2, 4, 6)),
        ("model.dropout=range(0.0,0.5,0.1)", (0.0, 0.1, 0.2, 0.3, 0.4)),
        ("seed=int(interval(2,4))", (2, 3, 4)),
        ("model.filters=choice([4,8],16)", ("[4,8]", 16)),
        ("model.weights='1e3',1e3", ("1e3", 1000.0)),
        ("model.weights=choice('x (z)','c=d,e')", ("x (z)", "c=d,e")),
        ("optimizer=glob(*, exclude=s*)", ("adam", "adamw")),
        ("model.dropout=null,0.1", (None, 0.1)),
    ],
)
def test_a_finite_domain_has_its_values_in_order(text: str, values: tuple[Any, ...]) -> None:
    override = parse_override(text)
    domain = domain_of(override, OPTIONS.get(override.key_or_group, ()))
    assert tuple(domain) == values
    assert [type(value) for value in domain] == [type(value) for value in values]
    assert all(value in domain for value in values)
    again = [parse_override(f"key={domain.text(value)}").value() for value in domain]
    assert [value if not isinstance(value, list) else str(value).replace(" ", "") for value in again] == list(values)


def test_a_shuffled_list_has_one_order_for_all_workers() -> None:
    random.seed(1)
    first = tuple(domain_of(parse_override("seed=shuffle(range(0,20))")))
    random.seed(2)
    assert tuple(domain_of(parse_override("seed=shuffle(range(0,20))"))) == first
    assert sorted(map(int, first)) == list(range(20))  # type: ignore[arg-type]
    assert first != tuple(range(20))


@pytest.mark.parametrize(
    "text", ["x (z)", "c=d,e", "1e3", "true", "null", "", "it's", 'a"b', "${x}", "a\\", "ü €", "a\nb"]
)
def test_a_text_passes_through_the_grammar_as_it_is(text: str) -> None:
    assert parse_override(f"model.weights={written(text)}").value() == text


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("optimizer.lr=tag(log,interval(1e-4,1e-1))", optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)),
        ("optimizer.lr=interval(0,1)", optuna.distributions.FloatDistribution(0, 1)),
        ("model.filters=tag(log,int(interval(4,64)))", optuna.distributions.IntDistribution(4, 64, log=True)),
        ("model.filters=range(4,17,4)", optuna.distributions.IntDistribution(4, 16, step=4)),
        ("model.dropout=range(0.0,0.5,0.1)", optuna.distributions.FloatDistribution(0.0, 0.4, step=0.1)),
        ("model.filters=4,8", optuna.distributions.CategoricalDistribution((4, 8))),
    ],
)
def test_optuna_gets_the_distribution_of_the_official_sweeper(
    text: str, distribution: optuna.distributions.BaseDistribution
) -> None:
    from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

    assert distribution_of(domain_of(parse_override(text))) == distribution
    assert create_params_from_overrides([text])[0] == {text.partition("=")[0]: distribution}


WRONG = {
    "reversed": ("optimizer.lr=interval(0.1,0.01)", "write interval(0.01, 0.1)"),
    "endless": ("optimizer.lr=interval(0.1,inf)", "two finite numbers"),
    "log from 0": ("optimizer.lr=tag(log,interval(0,1))", "begins above 0"),
    "log of a list": ("optimizer.lr=tag(log,choice(0.1,1))", "log belongs to an interval"),
    "another tag": ("optimizer.lr=tag(lgo,interval(0.1,1))", "the only tag is log"),
    "empty range": ("seed=range(5,1)", "holds no value"),
    "no step": ("seed=range(1,5,0)", "a step other than 0"),
    "a million values": ("optimizer.lr=range(0.1,1,1e-9)", "write interval(0.1, 1)"),
    "empty choice": ("seed=choice()", "name at least one value"),
    "null in a choice": ("model.dropout=choice(null,0.1)", "null,0.1"),
    "a bad value": ("model.dropout=choice(0.1,1.5)", "model.dropout=1.5"),
    "whole numbers": ("model.blocks=interval(1,4)", "int(interval(1, 4))"),
    "no such key": ("model.dropuot=choice(0.1,0.2)", "did you mean model.dropout"),
    "no option": ("optimizer=choice(sgd,adamww)", "did you mean adamw"),
    "an interval of options": ("optimizer=interval(0,1)", "is a config group"),
    "glob of nothing": ("optimizer=glob(x*)", "matches none of"),
    "parentheses": ("model.weights=choice(a (1),b)", "quotes"),
    "nested": ("seed=choice(range(1,3),4)", "write choice(1, 2, 3)"),
    "the study": ("study=a,b", "cannot be searched: it controls the sweep itself"),
    "the sweep": ("sweep.patience=1,2", "cannot be searched"),
    "the device": ("device=cpu,cuda", "cannot be searched"),
    "threads": ("trainer.threads=1,2", "cannot be searched"),
    "tracking": ("tracking=local,wandb", "cannot be searched"),
    "the test split": ("data.val_role=test,validation", "choose on the test split"),
    "Hydra": ("hydra.sweeper.n_trials=1,2", "controls Hydra"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_space_is_told_with_what_to_write(name: str) -> None:
    text, words = WRONG[name]
    space, problems = told(text)
    assert len(problems) == 1
    assert words in problems[0]
    assert not space.parameters


def conditions(*entries: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [{"when": when, "params": {key: text}} for when, key, text in entries]


@pytest.mark.parametrize(
    ("when", "searched", "holds"),
    [
        ("model.batch_norm=true", "model.batch_norm=choice(true,false)", {True}),
        ("model.batch_norm=True", "model.batch_norm=true,false", {True}),
        ("model.batch_norm!=true", "model.batch_norm=true,false", {False}),
        ("model.dropout=0", "model.dropout=choice(0.0,0.5)", {0.0}),
        ("model.dropout=0.50", "model.dropout=choice(0.0,0.5)", {0.5}),
        ("model.dropout!=0", "model.dropout=range(0.0,0.3,0.1)", {0.1, 0.2}),
        ("optimizer=sgd", "optimizer=choice(sgd,adamw)", {"sgd"}),
        ("model.batch_norm=true", "optimizer=choice(sgd,adamw)", {"sgd", "adamw"}),  # the default
        ("optimizer.lr=0.001", "seed=0,1", {0, 1}),
    ],
)
def test_conditions_compare_values(when: str, searched: str, holds: set[Any]) -> None:
    space = space_of(searched, conditional=conditions((when, "trainer.label_smoothing", "choice(0.1,0.2)")))
    key = searched.partition("=")[0]
    assert {point[key] for point in space.points() if "trainer.label_smoothing" in point} == holds


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("optimizer=sdg", "did you mean optimizer=sgd"),
        ("optimizer=adam", "optimizer is sgd or adamw in this sweep"),
        ("model.batch_norm=false", "model.batch_norm is true"),
        ("optmizer=sgd", "did you mean optimizer"),
        ("model.dropout=0.5", "never holds"),
        ("model.dropout", "write key=value"),
        ("optimizer.momentum=0.9", "write a condition on optimizer"),
    ],
)
def test_a_condition_that_never_holds_is_refused(when: str, words: str) -> None:
    entry = conditions((when, "trainer.label_smoothing", "choice(0.1,0.2)"))
    _, problems = told("optimizer=choice(sgd,adamw)", conditional=entry, known={**KNOWN, "optimizer.momentum": 0.9})
    assert len(problems) == 1
    assert words in problems[0]


def test_optional_allows_a_condition_that_this_sweep_leaves_out() -> None:
    entry = {**conditions(("optimizer=adam", "seed", "choice(0,1)"))[0], "optional": True}
    assert [each.key for each in space_of("optimizer=choice(sgd,adamw)", conditional=[entry]).parameters] == [
        "optimizer"
    ]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"if": "optimizer=sgd", "params": {"seed": "0,1"}}, "did you mean when"),
        ({"when": "optimizer=sgd", "parms": {"seed": "0,1"}}, "did you mean params"),
        ({"when": "optimizer=sgd"}, "write {when"),
        ("optimizer=sgd", "write {when"),
        ({"when": "optimizer=sgd", "params": "seed=0,1"}, "write {when"),
        ({"when": "optimizer=adamw", "params": {"seed": 3}}, "not one value"),
    ],
)
def test_a_malformed_condition_is_told(entry: Any, words: str) -> None:
    _, problems = told("optimizer=choice(sgd,adamw)", conditional=[entry])
    assert len(problems) == 1
    assert words in problems[0]


def test_a_key_has_other_values_under_another_condition() -> None:
    entries = conditions(
        ("optimizer=sgd", "optimizer.lr", "choice(0.1,0.05)"), ("optimizer=adamw", "optimizer.lr", "choice(1e-3,2e-3)")
    )
    space = space_of("optimizer=choice(sgd,adamw)", conditional=entries)
    names = [each.name for each in space.parameters]
    assert names == ["optimizer", "optimizer.lr [optimizer=sgd]", "optimizer.lr [optimizer=adamw]"]
    assert [key_of(name) for name in names] == ["optimizer", "optimizer.lr", "optimizer.lr"]
    texts = [space.overrides(point) for point in space.points()]
    assert texts == [
        [f"optimizer={option}", f"++optimizer.lr={rate}"]
        for option, rate in (("sgd", 0.1), ("sgd", 0.05), ("adamw", 0.001), ("adamw", 0.002))
    ]


def test_points_come_as_typed_and_the_model_before_its_keys() -> None:
    assert [tuple(point.values()) for point in space_of("seed=0,1", "optimizer=sgd,adam").points()] == [
        (0, "sgd"), (0, "adam"), (1, "sgd"), (1, "adam"),
    ]  # fmt: skip
    space = space_of("model.filters=4,8", "model=cnn,resnet18", "model.freeze_depth=0,1")
    assert [tuple(point.values()) for point in space.points()] == [
        ("cnn", 4), ("cnn", 8), ("resnet18", 0), ("resnet18", 1),
    ]  # fmt: skip
    assert space.count(100) == 4


def test_the_keys_of_a_data_set_are_searched_with_it_alone() -> None:
    options = {**OPTIONS, "data": ["digits", "synthetic"]}
    problems: list[str] = []
    space = read_space(
        {}, (), ["data.classes=3,4", "data=digits,synthetic", "seed=0,1"], known={**KNOWN, "data": "digits"},
        options=options, problems=problems, value_problems=value_check(options),
    )  # fmt: skip
    assert not problems
    texts = [" ".join(space.overrides(point)) for point in space.points()]
    assert len(texts) == 2 + 4
    assert all(("data.classes" in text) is ("data=synthetic" in text) for text in texts)


def trial(number: int, params: Point, state: TrialState = TrialState.COMPLETE, space: Any = None) -> FrozenTrial:
    domains = {each.name: distribution_of(each.domain) for each in space.parameters}
    made = create_trial(
        state=state, value=0.5 if state is TrialState.COMPLETE else None, params=params,
        distributions={name: domains[name] for name in params},
    )  # fmt: skip
    made.number = number
    return made


@pytest.mark.parametrize("seed", range(20))
def test_workers_that_do_not_see_each_other_take_each_point_once(seed: int) -> None:
    """Any of the trials that run asks next, and none sees what the others draw before it is written."""
    space, rng = space_of("seed=0,1,2", "optimizer=sgd,adam"), random.Random(seed)
    drawn: dict[int, Point] = {}
    waiting = list(range(6))
    while waiting:
        asking = rng.sample(waiting, k=min(len(waiting), rng.randint(1, 3)))
        seen = [trial(n, drawn.get(n, {}), TrialState.RUNNING, space) for n in range(6)]
        points = {number: next_point(space, seen, number) for number in asking}  # at the same moment
        for number, point in points.items():
            assert point is not None
            drawn[number] = point
            waiting.remove(number)
    assert [drawn[number] for number in range(6)] == list(space.points())
    seen = [trial(n, drawn[n], TrialState.COMPLETE, space) for n in range(6)]
    assert next_point(space, seen, 6) is None


def test_the_total_counts_what_is_left_of_a_space() -> None:
    space, larger = space_of("seed=0,1"), space_of("seed=0,1,2")
    done = [trial(number, {"seed": number}, space=space) for number in (0, 1)]
    assert total_trials(space, [], 20) == 2
    assert total_trials(space, [], 1) == 1
    assert total_trials(space, done, 20) == 2
    assert total_trials(larger, done, 20) == 3
    assert next_point(larger, done, 2) == {"seed": 2}
    other = space_of("seed=5,6")  # another space in the same study: its own points are all to be run
    assert total_trials(other, [trial(0, {"seed": 0}, space=space)], 20) == 3
    assert total_trials(space_of("optimizer.lr=interval(0.1,1)"), [], 20) == 20


def test_a_step_of_decimals_is_the_same_point_however_it_was_reached() -> None:
    space = space_of("model.dropout=range(0.0,0.5,0.1)")
    assert space.identity({"model.dropout": 0.1 + 0.2}) == space.identity({"model.dropout": 0.3})
    assert space.identity({"model.dropout": 0.2}) != space.identity({"model.dropout": 0.3})
    assert Interval(0.0, 0.4, step=0.1).is_finite
    assert 0.1 + 0.2 in Interval(0.0, 0.4, step=0.1)
    assert True not in Choices((1, 2))


def test_the_check_finds_what_the_sweeper_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of the sweeper, of pruners and of the space, in one message and by the words of all other keys."""
    words = [
        "hydra.sweeper.n_jobs=-1", "hydra.sweeper.max_failure_rate=2", "hydra.sweeper.n_trials=0",
        "hydra.sweeper.direction=up", "hydra.sweeper.n_trial=3", "hydra/sweeper/pruner=successive_halving",
        "hydra.sweeper.pruner.reduction_factor=1", "+hydra.sweeper.pruner.min_epoch=1",
        "+hydra.sweeper.search_space={model.filters: {type: int}}", "seed=0,1",
    ]  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        check_command_line(words, multirun=True)
    expected = [
        "hydra.sweeper.n_jobs=-1: must be a whole number in [1, 1024]",
        "hydra.sweeper.max_failure_rate=2: must be a number in [0, 1]",
        "hydra.sweeper.n_trials=0: must be a whole number in [1, 10000000]",
        "hydra.sweeper.direction=up: must be maximize or minimize",
        "hydra.sweeper.n_trial: no such key; did you mean hydra.sweeper.n_trials?",
        "hydra.sweeper.pruner.reduction_factor=1: must be a whole number in [2, 1000]",
        "hydra.sweeper.pruner.min_epoch: no such key; did you mean hydra.sweeper.pruner.min_epochs?",
        "hydra.sweeper.search_space: no such key",
    ]
    for text in expected:
        assert any(problem.startswith(text) for problem in caught.value.problems), (text, caught.value.problems)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hydra.sweeper.sampler=random"], "write hydra/sweeper/sampler=random"),
        (["hydra.sweeper.pruner=median"], "write hydra/sweeper/pruner=median"),
        (["hydra/sweeper/sampler=randm"], "did you mean random?"),
        (["hydra.sweeper.params=3"], "hydra.sweeper.params"),
        (["hydra.sweeper.conditional=x"], "hydra.sweeper.conditional"),
    ],
)
def test_a_wrong_word_for_the_sweeper_is_told(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_command_line([*words, "seed=0,1"], multirun=True)
    assert told in str(caught.value)


def test_a_mapping_on_the_command_line_is_a_space() -> None:
    words = ['hydra.sweeper.params={model.filters: "choice(2,4)", optimizer.lr: "tag(log, interval(1e-3, 1e-1))"}']
    assert check_command_line(words, multirun=True).words[0] == f"++{words[0]}"
    files = SearchPath()
    composed = files.compose([f"++{words[0]}"])
    assert set(composed.hydra.sweeper.params) == {"model.filters", "optimizer.lr"}


def test_a_sweep_without_a_name_is_named_by_time() -> None:
    named = check_command_line(["seed=0,1"], multirun=True)
    assert named.study.startswith("sweep_2")
    assert named.words == ["seed=0,1", f"study={named.study}"]
    for words, study in (
        (["seed=0,1", "study=mine"], "mine"),
        (["seed=0,1", "hydra.sweeper.study_name=other"], "other"),
        (["seed=0,1", "hydra.sweep.dir=here"], "default"),
        (["sweep=part_a"], "part_a_2"),
    ):
        assert check_command_line(words, multirun=True).study.startswith(study)
    assert check_command_line(["seed=0"], multirun=False).words == ["seed=0"]
