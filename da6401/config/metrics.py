"""The numbers that a sweep can optimise: their names, and what follows from a name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from da6401.registry import DECIMALS, METRICS, OF_VALIDATION


def word(name: str) -> str:
    """A metric in words."""
    return METRICS[name].words if name in METRICS else name.replace("_", " ")


@dataclass(frozen=True)
class Metric:
    """One number that a sweep optimises. In a study that another program made, it may have any name and direction."""

    index: int  # its place among a trial's values
    name: str
    maximise: bool

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """In Optuna's words."""
        return "maximize" if self.maximise else "minimize"

    @property
    def by_epoch(self) -> bool:
        """Whether each epoch has a value of its own."""
        return self.name in METRICS and METRICS[self.name].by_epoch

    def better(self, one: float, other: float) -> bool:
        """Whether the first value is better than the second."""
        return self.cost(one) < self.cost(other)

    def cost(self, value: float) -> float:
        """A number by which values are sorted, best first."""
        value = round(value, DECIMALS)
        return -value if self.maximise else value

    def sign_word(self, gap: float) -> str:
        """ "better" or "worse" of a difference, where less is better; "" where its sign says so, or there is none."""
        return "" if self.maximise or not gap else "better" if gap < 0 else "worse"

    def text(self, value: float) -> str:
        """A value for people, without the metric's name."""
        return (METRICS[self.name].form if self.name in METRICS else "{:.4g}").format(round(value, DECIMALS))


def chosen_metric(name: str) -> Metric:
    """That of `trainer.metric`, by which a run's best epoch is chosen; its name is that in metrics.jsonl."""
    return Metric(0, OF_VALIDATION + name, METRICS[OF_VALIDATION + name].maximise)


def names_of(value: object) -> list[str]:
    """The names in `sweep.objectives`: a list of them, or one text with commas, as older configs have it."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",")]
    return [str(name) for name in value] if isinstance(value, Iterable) else []


def directions_of(names: Iterable[str]) -> list[str]:
    """The directions that follow from names, in Optuna's words."""
    return [Metric(index, name, METRICS[name].maximise).direction for index, name in enumerate(names)]
