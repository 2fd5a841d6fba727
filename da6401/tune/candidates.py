"""The candidates of a race: those that a sweep names, then drawn ones, in turn near the defaults and from anywhere."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from da6401.config.domains import Interval, Value
from da6401.config.search_space import Parameter, Point, SearchSpace

SAMPLED = 60  # candidates besides the given ones, half of them near the defaults: bad defaults cost no more than that
CHANGED = 0.4  # the probability that a candidate near the defaults departs from them in a key


def with_drawn(given: Sequence[Point], space: SearchSpace, seed: int) -> list[Point]:
    """The given candidates, of which the first is the defaults, and SAMPLED more, without those drawn before."""
    points = list(given)
    for number in range(len(given), len(given) + SAMPLED):
        rng = random.Random(f"{seed} {number}")
        point = near(given[0], space, rng) if number % 2 else anywhere(space, rng)
        if point not in points:
            points.append(point)
    return points


def completed(point: Point, space: SearchSpace, seed: int) -> Point:
    """The point with any values where it has none, the same ones each time."""
    rng = random.Random(f"{seed} {sorted(point.items())}")
    return space.draw(lambda each: point[each.name] if each.name in point else _any(each, rng))


def anywhere(space: SearchSpace, rng: random.Random) -> Point:
    """A candidate from the whole space, every value alike, on a logarithmic scale where the key has one."""
    return space.draw(lambda parameter: _any(parameter, rng))


def near(defaults: Point, space: SearchSpace, rng: random.Random) -> Point:
    """A candidate that departs from the defaults in some keys."""

    def value_of(parameter: Parameter) -> Value:
        default = defaults.get(parameter.name)
        return default if default is not None and rng.random() > CHANGED else _other(parameter, default, rng)

    return space.draw(value_of)


def _any(parameter: Parameter, rng: random.Random) -> Value:
    domain = parameter.domain
    if not isinstance(domain, Interval) or domain.is_finite:
        return rng.choice(list(domain))
    if domain.log:
        return math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
    return rng.uniform(domain.low, domain.high)


def _other(parameter: Parameter, default: Value, rng: random.Random) -> Value:
    """A value near the default where there is an order, else any."""
    domain = parameter.domain
    if not isinstance(domain, Interval) or domain.step is not None:
        return rng.choice(list(domain))
    low, high = float(domain.low), float(domain.high)
    forth, back = (math.log, math.exp) if domain.log else (float, float)
    middle = float(default) if isinstance(default, (int, float)) else back((forth(low) + forth(high)) / 2)
    value = back(rng.gauss(forth(middle), (forth(high) - forth(low)) / 6))
    value = min(max(value, low), high)
    return round(value) if domain.is_whole else value
