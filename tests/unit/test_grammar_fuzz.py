"""No command line ends in a traceback: keys, functions, quotes and nesting thrown together, by hypothesis."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from da6401.config.command_line import check_command_line, hydra_arguments
from da6401.config.quoting import quoted
from da6401.config.read_space import read_space
from da6401.config.search_space import SearchSpace
from da6401.config.sweep_space import value_check
from da6401.errors import ConfigError, UserError

KNOWN = {
    "model": "cnn",
    "optimizer": "adamw",
    "model.dropout": 0.0,
    "optimizer.lr": 1e-3,
    "seed": 0,
    "experiment": None,
}
OPTIONS = {"model": ["cnn", "resnet18"], "optimizer": ["adam", "adamw", "sgd"], "experiment": ["part_a"]}

KEYS = """
seed model optimizer model.dropout model.filters optimizer.lr data.root study sweep experiment sweep.objectives trainer
hydra.sweeper.n_trials hydra.sweeper.params hydra.sweeper.conditional hydra/sweeper/sampler hydra.sweeper.sampler hydra
hydra/sweeper/pruner hydra.sweeper.direction hydra.sweep.dir hydra.sweeper.storage hydra.job.num model@x no_such a.b.c
_target_ . a/
"""
keys = st.sampled_from([*KEYS.split(), ""])
atoms = st.one_of(
    st.integers(-5, 5).map(str), st.floats().map(repr), st.sampled_from(["true", "null", "1e3", "nan", "-inf"]),
    st.sampled_from(["cnn", "sgd", "adamw", "resnet18", "part_a", "maximize", "*", "${seed}", "${oc.env:HOME}", "???"]),
    st.text(max_size=6), st.text(max_size=4).map(lambda text: f"'{text}'"), st.text("'\"\\(){}[],=: $", max_size=5),
)  # fmt: skip
FUNCTIONS = "choice range interval int float str bool sort shuffle glob tag tag(log x json_str"
functions = st.sampled_from(FUNCTIONS.split())


def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(inner, max_size=4).map(",".join)
    pair = st.tuples(st.sampled_from(["when", "params", "if", "model.dropout", "a", "1"]), inner)
    return st.one_of(
        st.tuples(functions, several).map(lambda pair: f"{pair[0]}({pair[1]})"),
        several.map("[{}]".format),
        st.lists(pair.map(lambda each: f"{each[0]}: {each[1]}"), max_size=3).map(
            lambda items: "{" + ", ".join(items) + "}"
        ),
        several,
        inner.map('"{}"'.format),
    )


values = st.recursive(atoms, deeper, max_leaves=6)
overrides = st.one_of(
    st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), keys, values).map(
        lambda each: f"{each[0]}{each[1]}={each[2]}"
    ),
    st.text(max_size=8),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(overrides, max_size=4), st.lists(st.tuples(keys, values), max_size=2))
def test_every_space_is_read_or_refused_with_a_reason(arguments: list[str], conditional: list[tuple[str, str]]) -> None:
    problems: list[str] = []
    space = read_space(
        dict(conditional), [{"when": f"{key}={value}", "params": {key: value}} for key, value in conditional],
        arguments, known=KNOWN, options=OPTIONS, problems=problems, value_problems=value_check(OPTIONS),
    )  # fmt: skip
    assert isinstance(space, SearchSpace)
    assert all(problem.strip() for problem in problems)
    if not problems and space.is_finite and space.count(200) < 200:
        for point in space.points():
            space.overrides(point)
            space.identity(point)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(overrides, min_size=1, max_size=3), st.booleans())
def test_every_command_line_is_taken_or_refused_with_a_reason(words: list[str], multirun: bool) -> None:
    with contextlib.suppress(UserError, SystemExit):  # SystemExit: a word that is a flag, such as -h
        given = hydra_arguments(quoted(words))
        check_command_line(given.overrides, multirun=multirun)


@pytest.mark.parametrize("text", ["hydra/sweeper/sampler=shuffle(0)", "hydra/launcher=3"])
def test_a_group_is_given_the_name_of_an_option(text: str) -> None:
    with pytest.raises(ConfigError, match="is a config group; give the name of an option"):
        check_command_line([text], config_dir=None, multirun=False)
