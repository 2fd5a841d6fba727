"""The decorators: what a plugin can bring, each under a name, with a dataclass of its keys."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from da6401.config.own_keys import CHOSEN, OWN, nested_keys, with_keys
from da6401.config.schema import (
    CnnConfig,
    NetworkConfig,
    OptimizerConfig,
    OwnDataConfig,
    PretrainedConfig,
    RunConfig,
    ScheduleConfig,
)
from da6401.config.validate import names_of, option_has_key, variants_of
from da6401.metrics.own_metrics import keys_of
from da6401.plugins.registered import LOADED, REGISTERED, Registered, broken, place_of, plugin_error, timed
from da6401.registry import (
    AUGMENTATIONS,
    BLOCKS,
    CALLBACKS,
    DATA_SOURCES,
    METRICS,
    NETWORKS,
    OF_VALIDATION,
    OPTIMIZERS,
    SCHEDULES,
    AugmentationEntry,
    BackboneEntry,
    DataSourceEntry,
    MetricEntry,
    OptimizerEntry,
    Registry,
    Rise,
    ScheduleEntry,
)

F = TypeVar("F", bound=Callable[..., Any])
NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")


def model(name: str, keys: type | None = None) -> Callable[[F], F]:
    """Register a network: ``model=NAME``. The function is given its configuration, the classes, and the side in px."""

    def register(function: F) -> None:
        schema = with_keys(NetworkConfig, name, keys, group="model", body={})
        _register("model", name, function, {NETWORKS: (name, function)}, ("model", schema))

    return _decorator("model", name, register)


def block(name: str, keys: type | None = None) -> Callable[[F], F]:
    """Register a block of the CNN: ``model=NAME``, with all keys of the CNN, whose blocks it makes."""

    def register(function: F) -> None:
        schema = with_keys(CnnConfig, name, keys, group="model", body={})
        _register("block", name, function, {BLOCKS: (name, function)}, ("model", schema))

    return _decorator("block", name, register)


def backbone(name: str, keys: type | None = None) -> Callable[[F], F]:
    """Register a backbone in stages: ``model=NAME``, with all keys of a pretrained one.

    The function gives the registry.BackboneEntry of its configuration.
    """

    def register(function: F) -> None:
        made: dict[str, Any] = {}

        def entry(cfg: Any) -> Any:  # asked for each epoch's plan
            if repr(cfg) not in made:
                made[repr(cfg)] = function(cfg)
            if not isinstance(made[repr(cfg)], BackboneEntry):
                raise broken("backbone", name, f"gave {type(made[repr(cfg)]).__name__}, which is no BackboneEntry")
            return made[repr(cfg)]

        body = {"backbone": property(entry)}
        schema = with_keys(PretrainedConfig, name, keys, group="model", body=body)
        _register("backbone", name, function, {}, ("model", schema))

    return _decorator("backbone", name, register)


def data_source(name: str, keys: type | None = None) -> Callable[[F], F]:
    """Register a source of images: ``data=NAME``, with keys for its size and its split."""

    def register(function: F) -> None:
        schema = with_keys(OwnDataConfig, name, keys, group="data", body={})
        entry = DataSourceEntry(
            schema=schema, source="da6401.data.own_source:OwnSource", function=timed("data_source", name, function)
        )
        _register("data_source", name, function, {DATA_SOURCES: (name, entry)}, ("data", schema))

    return _decorator("data_source", name, register)


def augmentation(name: str, keys: type | None = None) -> Callable[[F], F]:
    """Register a change of training images: ``augmentation=NAME``; its keys are ``augmentation.NAME.KEY``."""

    def register(function: F) -> None:
        entry = AugmentationEntry(
            step=timed("augmentation", name, function), keys=(), on_float=True, order=1000, own=name
        )
        schema = nested_keys(name, keys, switched=True)
        _register("augmentation", name, function, {AUGMENTATIONS: (name, entry)}, ("augmentation", schema))

    return _decorator("augmentation", name, register)


def optimizer(name: str, keys: type | None = None) -> Callable[[F], F]:
    """Register an optimizer: ``optimizer=NAME``. A field such as ``lr`` gives that key another default."""

    def register(function: F) -> None:
        schema = with_keys(OptimizerConfig, name, keys, group="optimizer", body={})

        def make(groups: list[dict[str, Any]], cfg: Any) -> Any:
            from torch.optim import Optimizer

            wanted = {id(each) for group in groups for each in group["params"]}
            made = function(groups, cfg)
            if not isinstance(made, Optimizer):
                raise broken("optimizer", name, f"gave {type(made).__name__}, which is no torch.optim.Optimizer")
            if {id(each) for group in made.param_groups for each in group["params"]} != wanted:
                raise broken("optimizer", name, "is over other parameters than those that it was given")
            if not all("base_lr" in group for group in made.param_groups):
                raise broken("optimizer", name, "has groups of its own, without the rates of those that it was given")
            return made

        _register("optimizer", name, function, {OPTIMIZERS: (name, OptimizerEntry(make))}, ("optimizer", schema))

    return _decorator("optimizer", name, register)


def schedule(name: str, keys: type | None = None, *, rise: Rise = float) -> Callable[[F], F]:
    """Register the shape of a learning-rate schedule after its warm-up: ``schedule=NAME``."""

    def register(function: F) -> None:
        schema = with_keys(ScheduleConfig, name, keys, group="schedule", body={})

        called = timed("schedule", name, function)

        def shape(cfg: Any, progress: Any) -> float:
            return _finite("schedule", name, called(cfg, progress), least=0.0, where=f" at step {progress.step}")

        _register("schedule", name, function, {SCHEDULES: (name, ScheduleEntry(shape, rise))}, ("schedule", schema))

    return _decorator("schedule", name, register)


def metric(
    name: str, keys: type | None = None, *, words: str = "", maximise: bool, form: str = "{:.4f}"
) -> Callable[[F], F]:
    """Register a metric of labels (N,) and probabilities (N, K): ``trainer.metric=NAME``, an objective ``val_NAME``.

    Its keys are ``metrics.NAME.KEY``.

    Args:
        words: what it is, for tables and messages; the name with spaces without.
        maximise: whether more is better.
        form: how a value is printed.
    """

    def register(function: F) -> None:
        schema = nested_keys(name, keys, switched=False)
        called = timed("metric", name, function)

        def score(labels_N: Any, probabilities_NK: Any) -> float:
            own = labels_N.copy(), probabilities_NK.copy()  # it may change its arrays; these are the run's
            value = called(*own, keys_of(name) or schema())
            return _finite("metric", name, value)

        entry = MetricEntry(f"validation {words or name.replace('_', ' ')}", maximise, form, by_epoch=True, of=score)
        _register("metric", name, function, {METRICS: (OF_VALIDATION + name, entry)}, ("metrics", schema))

    return _decorator("metric", name, register)


def callback(name: str, keys: type | None = None) -> Callable[[F], F]:
    """Register a class that follows runs: ``callbacks=NAME``; its keys are ``callbacks.NAME.KEY``.

    It is made with (cfg, out: the run's folder). Of its methods each may be absent: run_begins(), epoch_done(epoch,
    values), and run_done(result), which comes once for each run, and so for each trial of a sweep.
    """

    def register(made: F) -> None:
        if not any(callable(getattr(made, each, None)) for each in ("run_begins", "epoch_done", "run_done")):
            raise ValueError("it has none of the methods run_begins, epoch_done, run_done")
        schema = nested_keys(name, keys, switched=True)
        _register("callback", name, made, {CALLBACKS: (name, made)}, ("callbacks", schema))

    return _decorator("callback", name, register)


# ---- what they share ------------------------------------------------------------------------------------------------


def _decorator(kind: str, name: str, register: Callable[[F], None]) -> Callable[[F], F]:
    """A decorator that registers what it is given, and says where it stands if it cannot."""

    def decorate(what: F) -> F:
        try:
            _check_name(kind, name)
            register(what)
        except ValueError as error:
            file, line = place_of(what)
            rule = "a name is one of a kind, in small letters, and its keys are a dataclass with defaults"
            raise plugin_error(
                file, line, f"@{kind}({name!r}): {error}", rule=rule, remedy="mend the decorator or its dataclass"
            ) from error
        return what

    return decorate


def _check_name(kind: str, name: str) -> None:
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ValueError("the name is not of small letters, digits and _, starting with a letter")
    if not _is_text(name):
        raise ValueError(f"the command line reads {name} as a value that is no text; choose another name")
    group = GROUPS[kind]
    taken = set(OWN[group]) | {"none", "default"}
    if group in CHOSEN:
        taken |= {each for variant in variants_of(RunConfig)[group] for each in names_of(variant, group)}
    registry = OTHERS.get(kind)
    taken |= set(registry) if registry is not None else set()
    if kind == "augmentation":
        taken |= set(RunConfig().augmentation.__dataclass_fields__)
    if name in taken or OF_VALIDATION + name in taken or _is_file(group, name):
        first = next((each for (_, known), each in REGISTERED.items() if known == name), None)
        raise ValueError(f"the name {name} is taken{f' by {first.where}' if first else ''}; choose another")


def _is_text(name: str) -> bool:
    """Whether Hydra reads it as a text: true, null, inf and nan are none."""
    from da6401.config.quoting import value_of  # knows Hydra, too

    return value_of([f"model={name}"], "model") == name


def _is_file(group: str, name: str) -> bool:
    from da6401.config.search_path import conf_dir  # knows Hydra, which takes a moment

    return (conf_dir() / group / f"{name}.yaml").is_file()


def _register(
    kind: str,
    name: str,
    what: Callable[..., Any],
    entries: Mapping[Registry[Any], tuple[str, Any]],
    keys: tuple[str, type],
) -> None:
    group, schema = keys
    undo: list[Callable[[], object]] = []
    for registry, (known_as, entry) in entries.items():
        registry.register(known_as, entry)
        undo.append(functools.partial(registry.entries.pop, known_as, None))
    OWN[group][name] = schema
    found = Registered(kind, name, what, *place_of(what))
    REGISTERED[kind, name] = found
    undo += [
        functools.partial(OWN[group].pop, name, None),
        functools.partial(REGISTERED.pop, (kind, name), None),
        option_has_key.cache_clear,
    ]
    option_has_key.cache_clear()
    if LOADED:  # else it is registered by a program of the user's, for as long as that runs
        LOADED[-1].names.append(found)
        LOADED[-1].undo += undo


def _finite(kind: str, name: str, value: Any, *, least: float | None = None, where: str = "") -> float:
    number = None
    with suppress(TypeError, ValueError):
        number = float(value)
    if number is None or number != number or abs(number) == float("inf") or (least is not None and number < least):
        shown = repr(value) if isinstance(value, (int, float, str, type(None))) else type(value).__name__
        raise broken(kind, name, f"gave {shown}{where}")
    return number


GROUPS = {
    "model": "model", "block": "model", "backbone": "model", "data_source": "data", "augmentation": "augmentation",
    "optimizer": "optimizer", "schedule": "schedule", "metric": "metrics", "callback": "callbacks",
}  # fmt: skip
OTHERS: dict[str, Registry[Any]] = {
    "augmentation": AUGMENTATIONS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES, "metric": METRICS,
    "callback": CALLBACKS,
}  # fmt: skip
