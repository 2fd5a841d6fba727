"""What train(...) is given from Python: a module, data sets and metrics, registered as a plugin while it runs."""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da6401.config.splits import TEST, TRAIN, VALIDATION
from da6401.errors import UserError
from da6401.plugins import kinds
from da6401.plugins.loading import unload
from da6401.plugins.registered import LOADED, Plugin
from da6401.registry import DATA_SOURCES, DataSourceEntry

GIVEN = "given"  # the name of a model and of a data source from Python
KEPT = 4  # calls whose data sets are kept for Run.evaluate() and Run.explain(), whoever else holds them
_calls: dict[str, Objects] = {}  # all calls of this process by id, the latest last
_registered = 0  # times that objects were registered

Metric = Callable[[Any, Any], float]  # labels (N,) and probabilities (N, K) -> its value


@dataclass(frozen=True)
class Objects:
    """The objects of one call."""

    model: Any = None  # a torch module, or (num_classes, image_size) -> one
    train_data: Any = None  # a data set of (image, label)
    val_data: Any = None
    metrics: Mapping[str, Metric | tuple[Metric, str]] | None = None  # or a metric and "maximize" or "minimize"

    @property
    def overrides(self) -> list[str]:
        """The words that choose them."""
        return [
            *([f"model={GIVEN}"] if self.model is not None else []),
            *([f"data={GIVEN}"] if self.train_data is not None else []),
        ]

    @property
    def words(self) -> str:
        """What they are."""
        parts = [("model", self.model), ("train_data", self.train_data), ("val_data", self.val_data)]
        named = [f"{name}={_name(value)}" for name, value in parts if value is not None]
        return ", ".join([*named, *(f"metric {name}" for name in self.metrics or {})])


@dataclass(frozen=True, eq=False)
class _Older:
    """A data set of a call before the last ``KEPT``: it is there as long as the user's program holds it."""

    name: str
    data: Callable[[], Any]  # None where it is gone

    @classmethod
    def of(cls, data: Any) -> Any:
        if data is None or isinstance(data, cls):
            return data
        try:
            return cls(_name(data), weakref.ref(data))
        except TypeError:  # a list, say
            return cls(_name(data), lambda: None)


def _check_data(what: str, data: Any) -> None:
    if data is None:
        return
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")) or isinstance(data, Mapping):
        raise UserError(
            f"{what}={_name(data)}: is no data set with len() and [number], which gives pairs of an image and a label; "
            "of a DataLoader give its .dataset, of an iterable a list of its pairs"
        )
    if not len(data):
        raise UserError(f"{what}={_name(data)}: has no image; leave it out, or give one with images")


def _check_metrics(metrics: Any) -> None:
    if metrics is None:
        return
    if not isinstance(metrics, Mapping):
        raise UserError(f'metrics={_name(metrics)}: is no dictionary; write metrics={{"name": function}}')
    for name, metric in metrics.items():
        function, direction = _directed(metric)
        if not isinstance(name, str) or not callable(function):
            raise UserError(
                f"metrics[{name!r}]: is no function under a name; write a function (labels, probabilities), or "
                '(function, "minimize")'
            )
        if direction not in ("maximize", "minimize"):
            raise UserError(f"metrics[{name!r}]: the direction is maximize or minimize, not {direction!r}")


def _held(data: Any) -> Any:
    return data.data() if isinstance(data, _Older) else data


def _are_same(one: Objects, other: Objects) -> bool:
    """Whether two calls were given the same objects, not merely equal ones; an id serves for both then."""
    pairs = [(one.model, other.model), (one.train_data, other.train_data), (one.val_data, other.val_data)]
    if any(_held(first) is not _held(second) or (first is None) != (second is None) for first, second in pairs):
        return False
    mine, theirs = one.metrics or {}, other.metrics or {}
    return list(mine) == list(theirs) and all(
        function is theirs_of and direction == other_direction
        for (function, direction), (theirs_of, other_direction) in zip(
            map(_directed, mine.values()), map(_directed, theirs.values()), strict=True
        )
    )


def _directed(metric: Any) -> tuple[Any, Any]:
    return metric if isinstance(metric, tuple) and len(metric) == 2 else (metric, "maximize")


def parts_of(words: str) -> set[str]:
    """What ``Objects.words`` names that is registered: model, train_data, and each metric."""
    return {part.partition("=")[0] for part in words.split(", ")} - {"val_data"}


@contextmanager
def given(objects: Objects) -> Iterator[None]:
    """Within the block the objects are registered, under names that ``overrides`` chooses.

    Raises:
        UserError: what was given is none of what it should be.
    """
    _check_metrics(objects.metrics)
    if not objects.words:
        yield
        return
    if objects.val_data is not None and objects.train_data is None:
        raise UserError("val_data is given without train_data: give both, or neither")
    _check_data("train_data", objects.train_data)
    _check_data("val_data", objects.val_data)
    call = next((known for known, kept in _calls.items() if _are_same(kept, objects)), uuid.uuid4().hex)
    _calls.pop(call, None)
    _calls[call] = objects
    for known in list(_calls)[:-KEPT]:
        older = _calls[known]
        _calls[known] = dataclasses.replace(
            older, train_data=_Older.of(older.train_data), val_data=_Older.of(older.val_data)
        )
    with again([call]):
        yield


@contextmanager
def again(calls: Sequence[str]) -> Iterator[None]:
    """Within the block the objects of these calls are registered, as far as this process has them.

    Those of another call, which have the same names, are not registered meanwhile.
    """
    there = {plugin.python for plugin in LOADED}
    wanted = [call for call in dict.fromkeys(calls) if call in _calls and call not in there]
    others = [plugin for plugin in LOADED if plugin.python] if wanted else []
    plugins = []
    for plugin in reversed(others):
        unload(plugin)
    try:
        for call in wanted:
            plugins.append(Plugin(Path(), python=call, objects=_calls[call].words))
            LOADED.append(plugins[-1])
            _register(_calls[call])
        yield
    finally:
        for plugin in reversed(plugins):
            unload(plugin)
        for plugin in others:
            plugin.names.clear()
            plugin.undo.clear()
            LOADED.append(plugin)
            _register(_calls[plugin.python])


def registrations() -> int:
    """A number that changes when objects are registered: what they hold may have changed in place since."""
    return _registered


def _register(objects: Objects) -> None:
    global _registered
    _registered += 1
    if objects.model is not None:
        kinds.model(GIVEN)(_factory(objects.model))
    if objects.train_data is not None:
        function = functools.lru_cache(maxsize=None)(_Splits(objects))
        kinds.data_source(GIVEN)(_named(lambda cfg, split: function(split), objects.train_data))
        entry = DATA_SOURCES.entries[GIVEN]
        DATA_SOURCES.entries[GIVEN] = DataSourceEntry(
            schema=entry.schema, source="da6401.data.own_source:GivenSource", function=entry.function
        )
    for name, metric in (objects.metrics or {}).items():
        function_of, direction = _directed(metric)
        kinds.metric(name, maximise=direction == "maximize")(_without_keys(function_of))


def _factory(model: Any) -> Callable[..., Any]:
    """A function as a plugin has it; of a module each run trains a copy."""
    from torch import nn

    if isinstance(model, nn.Module):
        return _named(lambda cfg, num_classes, image_size: copy.deepcopy(model), model)
    if not callable(model):
        raise UserError(f"model={_name(model)}: is no torch module and no function (num_classes, image_size) of one")
    return _named(lambda cfg, num_classes, image_size: model(num_classes, image_size), model)


def _without_keys(function: Metric) -> Callable[..., Any]:
    return _named(lambda labels, probabilities, cfg: function(labels, probabilities), function)


def _named(function: Callable[..., Any], of: Any) -> Callable[..., Any]:
    """The function, whose messages name the user's own object, and its file where it has one."""
    function.__name__ = _name(of)
    if callable(of) and hasattr(of, "__code__"):
        function.__wrapped__ = of  # type: ignore[attr-defined]
    else:
        function.place = f"train(...) with {_name(of)}"  # type: ignore[attr-defined]
    return function


def _name(value: Any) -> str:
    if isinstance(value, _Older):
        return value.name
    return str(getattr(value, "__name__", type(value).__name__))


def _whole(label: Any, where: str) -> int:
    """A label as a number: int() would cut 0.9 to 0."""
    try:
        value = label.item() if hasattr(label, "item") else label
        return int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a text, a fraction; a tensor of several numbers
        shown = repr(label) if isinstance(label, (str, float)) else type(label).__name__
        raise UserError(
            f"{where}: its label is {shown}\n  rule: a label is a whole number, the place of its class from 0\n"
            "  remedy: give int(label), or the place of its name in classes"
        ) from error


@dataclass(frozen=True, eq=False)
class _Splits:
    """A data set's splits as a plugin's function gives them."""

    objects: Objects

    def __call__(self, split: str) -> tuple[list[Any], list[int], list[str]]:
        kept = {TRAIN: self.objects.train_data, VALIDATION: self.objects.val_data, TEST: None}[split]
        data = _held(kept)
        if data is None and kept is not None:
            raise UserError(
                f"{split} data {_name(kept)}: is no longer held\n  rule: this process holds the data sets of the last "
                f"{KEPT} calls of train(...), and an older one as long as your program does\n  remedy: keep it in a "
                "variable of yours"
            )
        pairs = [] if data is None else [data[index] for index in range(len(data))]
        if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
            raise UserError(f"{split} data {_name(data)}: gives other things than pairs of an image and a label")
        labels = [_whole(label, f"{split} data {_name(kept)}, pair {place}") for place, (_, label) in enumerate(pairs)]
        names = getattr(_held(self.objects.train_data), "classes", None)
        if names is None and split != TRAIN:
            names = self(TRAIN)[2]
        elif names is None:
            names = range(max(labels, default=0) + 1)
        return [image for image, _ in pairs], labels, list(map(str, names))
