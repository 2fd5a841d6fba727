"""Reads a sweep's search space from its YAML and its command line, and reports all of its problems."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override, Transformer

from da6401.config.domains import Domain, Interval, domain_of, written
from da6401.config.search_space import Condition, Parameter, SearchSpace, as_value, parse_override
from da6401.errors import did_you_mean, nearest_name

# What must be the same in all trials of a study, and why. Everything else can be searched.
NOT_SEARCHED = (
    (r"study|sweep(\..*)?", "controls the sweep itself"),
    (r"hydra[./].*", "controls Hydra, not a trial"),
    (r"device|trainer\.(threads|progress|resume|checkpoint_minutes)", "does not change what a trial learns"),
    (r"data\.(cache|cache_limit_gb)|trainer\.average_end", "does not change what a trial learns"),
    (r"tracking(\..*)?", "says where the numbers go; all trials of a study go to one place"),
    (r"trainer\.metric", "is what the trials are compared by"),
    (
        r"data\.(val_role|test_fraction|group_by|exclude|layout|class_depth)",
        "would let trials choose on the test split",
    ),
)


def read_space(
    params: Mapping[str, Any],
    conditional: Sequence[Any],
    arguments: Sequence[str],
    *,
    known: Mapping[str, Any],
    options: Mapping[str, Sequence[str]],
    problems: list[str],
    value_problems: Callable[[str, Any], list[str]],
    lenient: bool = True,
) -> SearchSpace:
    """The space of a sweep's YAML and command line; what the command line sets is no longer searched.

    Args:
        params: key -> Hydra sweep, such as ``optimizer.lr: tag(log, interval(1e-4, 1e-1))``, or one fixed value.
        conditional: each ``{when: "model=cnn", params: {...}}``; ``when`` may combine several keys with commas, and
            ``optional: true`` says that it need not hold in every use of the sweep.
        arguments: the task overrides of the command line.
        known: every key's value in the composed configuration, and each config group's option.
        options: each config group's options.
        problems: every problem is added here.
        value_problems: what is wrong with one value of a key.
        lenient: a condition may fail to hold for what the command line sets; not where it was typed there itself.
    """
    reader = _Reader(options, problems, value_problems)
    searched, fixed, deletions = reader.read([(key, f"{key}={_text(value)}") for key, value in params.items()])
    typed, typed_fixed, typed_deletions = reader.read([(None, text) for text in arguments])
    fixed = {key: value for key, value in fixed.items() if key not in typed} | typed_fixed
    always = {key: domain for key, domain in (searched | typed).items() if key not in typed_fixed}
    values = {key: each.value() for key, each in fixed.items()}
    space = _Conditions(reader, {**known, **values}, always, narrowed={*typed, *typed_fixed} if lenient else set())
    parameters = [Parameter(key, key, domain) for key, domain in always.items()]
    for number, entry in enumerate(conditional):
        parameters += space.read(f"hydra.sweeper.conditional[{number}]", entry, taken=fixed)
    texts = {key: each.get_value_element_as_str() for key, each in fixed.items()}
    written_down = [*searched, *(str(key) for entry in conditional for key in _params_of(entry))]
    return SearchSpace(
        tuple(_with_unique_names(parameters)), texts, {**known, **values}, (*deletions, *typed_deletions),
        replaced=tuple(key for key in dict.fromkeys(written_down) if key in typed_fixed),
    )  # fmt: skip


def _params_of(entry: Any) -> Mapping[str, Any]:
    params = entry.get("params") if isinstance(entry, Mapping) else None
    return params if isinstance(params, Mapping) else {}


def _with_unique_names(parameters: Sequence[Parameter]) -> Iterator[Parameter]:
    """Optuna knows one set of choices for a name: a key with other values elsewhere is named with its condition."""
    for parameter in parameters:
        others = [each.domain for each in parameters if each.key == parameter.key]
        if all(each == others[0] for each in others):
            yield parameter
        else:
            name = f"{parameter.key} [{', '.join(map(str, parameter.conditions))}]"
            yield Parameter(name, parameter.key, parameter.domain, parameter.conditions)


class _Reader:
    """Overrides as domains, fixed values and deletions; of a key given twice the last counts."""

    def __init__(
        self,
        options: Mapping[str, Sequence[str]],
        problems: list[str],
        value_problems: Callable[[str, Any], list[str]],
    ) -> None:
        self.options = options
        self.problems = problems
        self.value_problems = value_problems

    def read(self, texts: Sequence[tuple[str | None, str]]) -> tuple[dict[str, Domain], dict[str, Override], list[str]]:
        searched: dict[str, Domain] = {}
        fixed: dict[str, Override] = {}
        deletions: list[str] = []
        for name, text in texts:
            try:
                override = parse_override(text)
            except ValueError as error:
                self.problems.append(f"{text if name is None else f'hydra.sweeper.params.{name}'}: {error}")
                continue
            key = override.key_or_group
            if override.is_delete():
                deletions.append(text)
                continue
            searched.pop(key, None)
            fixed.pop(key, None)
            if not override.is_sweep_override():
                fixed[key] = override
            elif (domain := self.domain(override)) is not None:
                searched[key] = domain
        return searched, fixed, deletions

    def domain(self, override: Override) -> Domain | None:
        """The domain of a searched key; None, with the problem recorded, if it has none."""
        key = override.key_or_group
        reason = next((why for pattern, why in NOT_SEARCHED if re.fullmatch(pattern, key)), "")
        if reason:
            self.problems.append(f"{key}: cannot be searched: it {reason}; give one value")
            return None
        try:
            domain = domain_of(override, self.options.get(key, ()))
        except ValueError as error:
            self.problems.append(f"{override.input_line}: {error}")
            return None
        found = list(dict.fromkeys(self._domain_problems(key, domain)))
        self.problems += found
        return None if found else domain

    def _domain_problems(self, key: str, domain: Domain) -> Iterator[str]:
        if key in self.options:
            names = [str(value) for value in domain] if not isinstance(domain, Interval) else []
            if not names:
                yield f"{key}: is a config group; write {key}=choice({', '.join(self.options[key])})"
            for value in domain if names else ():
                yield from self.value_problems(key, value)
            return
        if not isinstance(domain, Interval):
            for value in domain:
                shown = parse_override(f"{key}={domain.text(value)}").value()  # a list stands as its text
                yield from self.value_problems(key, shown)
            return
        ends = [problem for value in (domain.low, domain.high) for problem in self.value_problems(key, value)]
        yield from ends
        between = domain.low + (domain.high - domain.low) / 3.14159  # no whole number, where the ends may be
        if not ends and not domain.is_finite and domain.low < domain.high and self.value_problems(key, between):
            whole = f"int(interval({round(domain.low)}, {round(domain.high)}))"
            yield f"{key}: takes whole numbers; write {f'tag(log, {whole})' if domain.log else whole}"


class _Conditions:
    """The entries of hydra.sweeper.conditional."""

    def __init__(
        self, reader: _Reader, known: Mapping[str, Any], always: Mapping[str, Domain], *, narrowed: set[str]
    ) -> None:
        self.reader = reader
        self.known = known
        self.narrowed = (
            narrowed  # keys of the command line: that a YAML's condition then never holds is the user's wish
        )
        self.domains: dict[str, list[Domain]] = {key: [domain] for key, domain in always.items()}
        self.always = always

    def read(self, where: str, entry: Any, *, taken: Mapping[str, Any]) -> list[Parameter]:
        """The parameters of an entry: those that the command line or the whole sweep sets are not its own."""
        problems = self.reader.problems
        if not isinstance(entry, Mapping):
            problems.append(f'{where}: write {{when: "key=value", params: {{key: "choice(...)"}}}}')
            return []
        allowed = ("when", "params", "optional")
        for name in [str(name) for name in entry if name not in allowed]:
            nearest = "when" if name in ("if", "condition") else nearest_name(name, allowed)
            hint = f"; did you mean {nearest}?" if nearest else ""
            problems.append(f"{where}.{name}: no such key; an entry has when, params and optional{hint}")
        missing = [name for name in ("when", "params") if name not in entry]
        params = entry.get("params")
        if missing or not isinstance(params, Mapping) or not isinstance(entry.get("optional", False), bool):
            if not set(entry) - set(allowed):
                problems.append(f'{where}: write {{when: "key=value", params: {{key: "choice(...)"}}}}')
            return []
        conditions = _conditions(str(entry["when"]), where, problems)
        impossible = [
            each for each in conditions if self._never_holds(each, where, optional=bool(entry.get("optional")))
        ]
        if impossible:
            return []
        searched, fixed, _ = self.reader.read([(str(key), f"{key}={_text(value)}") for key, value in params.items()])
        if fixed:
            problems.append(f"{where}: {', '.join(fixed)}: give a choice or an interval, not one value")
        found = [
            Parameter(key, key, domain, conditions)
            for key, domain in searched.items()
            if key not in taken and key not in self.always
        ]
        for parameter in found:
            self.domains.setdefault(parameter.key, []).append(parameter.domain)
        return found

    def _never_holds(self, condition: Condition, where: str, *, optional: bool) -> bool:
        """Whether no trial can meet a condition; a problem is recorded if that must be a mistake."""
        key, group = condition.key, condition.key.partition(".")[0]
        domains = self.domains.get(key, [])
        by_default = key not in self.always and key in self.known
        if by_default and "." in key and group in self.always and key not in self.narrowed:
            self.reader.problems.append(
                f"{where}: when: {condition}: {key} comes with the option of {group}, which is searched; "
                f"write a condition on {group}"
            )
            return True
        if (by_default and condition.admits(self.known[key])) or any(
            any(value in domain for value in (as_value(condition.value), condition.value))
            if condition.equal
            else self._admits_some(domain, condition)
            for domain in domains
        ):
            return False
        impossible = key in self.known and self.reader.value_problems(key, as_value(condition.value))
        if impossible or (not optional and key not in self.narrowed):
            self.reader.problems.append(f"{where}: when: {condition}: never holds{self._instead(condition, domains)}")
        return True

    @staticmethod
    def _admits_some(domain: Domain, condition: Condition) -> bool:
        return any(condition.admits(value) for value in domain) if _countable(domain) else True

    def _instead(self, condition: Condition, domains: Sequence[Domain]) -> str:
        key = condition.key
        if not domains and key not in self.known:
            return f": {key} is no key{did_you_mean(key, [*self.domains, *self.known])}"
        values = [written(value) for domain in domains if not isinstance(domain, Interval) for value in domain]
        if key not in self.always and key in self.known:
            default = self.known[key]
            values.append(_text(default) if isinstance(default, (list, dict)) else written(default))
        ranges = [f"{each.low:g} to {each.high:g}" for each in domains if isinstance(each, Interval)]
        nearest = nearest_name(condition.value, values) if condition.equal else None
        told = f": {key} is {' or '.join(dict.fromkeys([*values, *ranges]))} in this sweep"
        return told + (f"; did you mean {key}={nearest}?" if nearest else "; optional: true in the entry allows that")


def _countable(domain: Domain) -> bool:
    return not isinstance(domain, Interval) or domain.is_finite


def _conditions(text: str, where: str, problems: list[str]) -> tuple[Condition, ...]:
    """``model=cnn, augmentation!=none``, part by part."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([\w.]+)\s*(!?=)\s*(\S+)\s*", part)
        if match is None:
            problems.append(f"{where}: when: {text!r}: write key=value or key!=value, with commas")
        else:
            found.append(Condition(match[1], match[2] == "=", match[3]))
    return tuple(found)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else Transformer.str(value)
