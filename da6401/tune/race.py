"""Which training a race starts next: a pure function of what has been trained, what trainings cost, and the time left.

A race judges candidates by short complete trainings, of equal seconds or, with much time, of an equal share of their
most epochs, and gives most of the time to long trainings of the best: a complete schedule of a third of the length
ranks long trainings better than the state in the middle of a long one (docs/tune.md). A candidate passes one that
stands before it only where the paired difference of their losses on the validation images says so: the order of the
candidates is their prior. The first candidate is judged in any case, so that there is a model early.
"""

# N validation images

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from da6401.redact import duration

Phase = Literal["judge", "long"]
Losses = npt.NDArray[np.float64]  # (N,): of each validation image, nats

JUDGE_SHARE = 0.2  # of the race's time goes to judging at first, or the longest training of the best, if that is less
LARGER = 1.5  # times the best one's longest training: what takes so long may be judged in ...
SPARE_SHARE = 0.5  # ... so much of the time that the longest training of the best leaves
LONG_SHARE = 0.55  # of the race's time is for long trainings, once the best one has had its longest
JUDGE_EACH = 0.06  # of the race's time goes to each candidate that is judged,
FIRST_SHARE = 0.12  # or as much as one epoch of the first takes, up to this,
FIRST_ROOM = 1.2  # and a fifth more: where features have to be computed, many epochs cost little besides,
JUDGE_EPOCHS = 1 / 3  # or a training of this share of the most epochs, where that is shorter
ROOM_FOR_ERROR = 0.92  # of the time left is planned: trainings take some percent longer than measured
LEAST_PROBABILITY = 1e-6  # of the true class, so that one image cannot decide
STANDARD_ERRORS = 1.0  # by which a candidate must beat one that stands before it,
CLEAR_ERRORS = 0.25  # or so many where judging takes long enough to rank long trainings: ...
CLEAR_EPOCHS = 0.25  # ... this share of their epochs
ALIKE: Losses = np.zeros(2)  # of candidates that nothing tells apart
LEAST_GROWTH = 1.5  # a candidate is trained again only for so many times the epochs that it had


@dataclass(frozen=True)
class Candidate:
    """What is known of a candidate before it is trained."""

    fixed: float  # seconds to start and end a training, with features of frozen stages that are not there yet
    epoch: float  # seconds
    least_epochs: int  # a shorter training says nothing
    most_epochs: int  # a longer one gains nothing
    fewest_epochs: int = 1  # a shorter one cannot run

    def seconds(self, epochs: int) -> float:
        """Of a training of so many epochs."""
        return self.fixed + self.epoch * epochs

    def epochs(self, seconds: float) -> int:
        """How many fit into so many seconds, at most the most; 0 or less where none does."""
        room = (seconds - self.fixed) / self.epoch
        return math.floor(min(max(room, -1), self.most_epochs))


@dataclass(frozen=True)
class Tried:
    """A training of a candidate that runs, or has ended."""

    candidate: int  # its place in the order
    epochs: int
    losses_N: Losses | None  # None where it runs, or did not complete


@dataclass(frozen=True)
class Step:
    """A training to start."""

    candidate: int
    epochs: int
    phase: Phase
    seconds: float  # that it is expected to take


@dataclass(frozen=True)
class Race:
    """A race over candidates.

    Args:
        families: one name a candidate, in their order: what is unknown of one is guessed from others of its family.
        candidate: what is known of the one with this number, now.
        total: seconds from the first training to the hand-over.
    """

    families: Sequence[str]
    candidate: Callable[[int], Candidate]
    total: float

    def next_step(self, tried: Sequence[Tried], left: float) -> Step | None:
        """The training to start now; None where none that is worth it fits into the time left.

        Args:
            left: seconds until the hand-over must begin.
        """
        return self._judge(tried, left) or self._train_long(tried, left)

    def plan(self) -> list[Step]:
        """All trainings until the hand-over, if each takes what is expected and the first candidate wins."""
        steps: list[Step] = []
        tried: list[Tried] = []
        left = self.total
        while (step := self.next_step(tried, left)) is not None:
            steps.append(step)
            tried.append(Tried(step.candidate, step.epochs, ALIKE))
            left -= step.seconds
        return steps

    @property
    def least_seconds(self) -> float:
        """In which the first candidate gets its least epochs: with less a race makes no sense."""
        first = self.candidate(0)
        return first.seconds(first.least_epochs) / ROOM_FOR_ERROR

    def _judge(self, tried: Sequence[Tried], left: float) -> Step | None:
        """The first candidate that was not tried, as long as the judges' share lasts."""
        first = self.candidate(0)
        enough = first.epochs(self._judge_seconds(first))
        if not tried:
            epochs = min(enough, first.epochs(left))
            return Step(0, epochs, "judge", first.seconds(epochs)) if epochs >= first.fewest_epochs else None
        if enough < first.least_epochs:
            return None  # too little time to judge others
        most, for_larger, larger = self._judges_time(tried, left)
        known = {one.candidate for one in tried}
        for number in (number for number in range(len(self.families)) if number not in known):
            if max(most, for_larger) < first.seconds(first.least_epochs):
                return None
            candidate = self.candidate(number)
            epochs = max(candidate.epochs(self._judge_seconds(candidate)), candidate.least_epochs)
            seconds = candidate.seconds(epochs)
            allowed = for_larger if candidate.seconds(candidate.most_epochs) >= larger else most
            if seconds <= min(allowed, left):
                return Step(number, epochs, "judge", seconds)
            for_larger = most  # only the next one in the order may have more
        return None

    def _judge_seconds(self, candidate: Candidate) -> float:
        """That a training to judge a candidate may take."""
        first = self.candidate(0)
        each = min(JUDGE_EACH * self.total, candidate.seconds(math.ceil(JUDGE_EPOCHS * candidate.most_epochs)))
        return max(each, min(FIRST_ROOM * first.seconds(1), FIRST_SHARE * self.total))

    def _judges_time(self, tried: Sequence[Tried], left: float) -> tuple[float, float, float]:
        """Seconds for one more training that judges, those for a larger candidate, and how long such a one trains."""
        spent = sum(self.candidate(one.candidate).seconds(one.epochs) for one in tried)
        order = self.ranked(tried)
        if not order:  # all have failed
            return JUDGE_SHARE * self.total - spent, 0.0, math.inf
        best = self.candidate(order[0])
        longest = best.seconds(best.most_epochs) / ROOM_FOR_ERROR
        if LEAST_GROWTH * _longest(tried).get(order[0], 0) > best.most_epochs:
            rest = left - LONG_SHARE * self.total
            return rest, rest, math.inf
        most = min(JUDGE_SHARE * self.total, longest) - spent
        return most, max(most, SPARE_SHARE * (left - longest)), LARGER * longest

    def _train_long(self, tried: Sequence[Tried], left: float) -> Step | None:
        """The best candidate that can be trained much longer than it was, or was not trained yet."""
        first = self.candidate(0)
        if first.epochs(ROOM_FOR_ERROR * left) < first.least_epochs:
            return None if tried else self._shortest(left)
        longest = _longest(tried)
        for number in self.ranked(tried):
            candidate = self.candidate(number)
            epochs = candidate.epochs(ROOM_FOR_ERROR * left)
            needed = LEAST_GROWTH * longest[number] if number in longest else candidate.least_epochs
            if epochs >= max(candidate.fewest_epochs, needed):
                return Step(number, epochs, "long", candidate.seconds(epochs))
        return None

    @functools.cached_property
    def _errors(self) -> float:
        """By how many standard errors a candidate must beat one that stands before it."""
        first = self.candidate(0)
        clear = first.epochs(self._judge_seconds(first)) >= CLEAR_EPOCHS * first.epochs(self.total)
        return CLEAR_ERRORS if clear else STANDARD_ERRORS

    def _shortest(self, left: float) -> Step | None:
        """The first candidate's training where there is no time for a judged one: better a short training than none."""
        first = self.candidate(0)
        epochs = first.epochs(left)
        return Step(0, epochs, "long", first.seconds(epochs)) if epochs >= first.fewest_epochs else None

    def ranked(self, tried: Sequence[Tried]) -> list[int]:
        """All candidates, the best first, each by its longest training.

        One that was not trained stands after those of its family that were, and else in its own place at the end; one
        whose training failed is left out.
        """
        known: dict[int, Tried] = {}
        for one in tried:
            if one.losses_N is not None and one.epochs >= known.get(one.candidate, one).epochs:
                known[one.candidate] = one
        order: list[int] = []
        for number in sorted(known):
            place = len(order)
            while place and is_lower(_losses(known[number]), _losses(known[order[place - 1]]), self._errors):
                place -= 1
            order.insert(place, number)
        failed = {one.candidate for one in tried if one.losses_N is None}
        for number, family in enumerate(self.families):
            if number not in known and number not in failed:
                same = [place for place, other in enumerate(order) if self.families[other] == family]
                order.insert(same[-1] + 1 if same else len(order), number)
        return order


def plan_words(steps: Sequence[Step], spent: float, reserve: float) -> str:
    """For people: what is done with the minutes, by what the first candidate's steps took."""
    judged, long = ([step for step in steps if step.phase == phase] for phase in ("judge", "long"))
    words = [f"{duration(spent)} are spent"]
    if judged:
        seconds = sum(step.seconds for step in judged)
        what = "1 candidate" if len(judged) == 1 else f"{len(judged)} candidates"
        words.append(f"{what} judged by trainings of {judged[0].epochs} epochs or so, {duration(seconds)}")
    for epochs, alike in itertools.groupby(long, key=lambda step: step.epochs):
        each = [step.seconds for step in alike]
        what = "a long training" if len(each) == 1 else f"{len(each)} long trainings"
        words.append(f"{what} of about {epochs} epochs, {duration(sum(each))}")
    return "; ".join([*words, f"{duration(reserve)} for the model and the summary"])


def image_losses(labels_N: npt.NDArray[np.int64], probabilities_NK: npt.NDArray[np.floating]) -> Losses:
    """The cross-entropy of each image's true class, whose probability counts as at least LEAST_PROBABILITY."""
    right_N = probabilities_NK[np.arange(len(labels_N)), labels_N].astype(np.float64)
    return -np.log(np.maximum(right_N, LEAST_PROBABILITY))


def is_lower(first_N: Losses, second_N: Losses, errors: float = STANDARD_ERRORS) -> bool:
    """Whether the first losses are lower by so many standard errors of the mean of the paired differences."""
    if len(first_N) < 2:
        return False
    difference_N = second_N - first_N
    return bool(difference_N.mean() > errors * difference_N.std(ddof=1) / math.sqrt(len(difference_N)))


def _longest(tried: Sequence[Tried]) -> dict[int, int]:
    """The most epochs that each candidate was trained with."""
    longest: dict[int, int] = {}
    for one in tried:
        longest[one.candidate] = max(one.epochs, longest.get(one.candidate, 0))
    return longest


def _losses(tried: Tried) -> Losses:
    assert tried.losses_N is not None, "only those with losses are known"
    return tried.losses_N
