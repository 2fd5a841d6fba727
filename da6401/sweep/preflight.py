"""What the trials of a sweep need, looked at once before the first of them: device, data, weights."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
from collections.abc import Callable, Iterator

from da6401.config.schema import RunConfig
from da6401.config.search_space import SearchSpace
from da6401.errors import ConfigError, UserError
from da6401.sweep.jobs import Job, JobComposer

log = logging.getLogger(__name__)

# Searched keys that say which data, weights and device a trial needs.
NEEDS = re.compile(r"(data|model|experiment|trainer)(/.*)?|data\..*|model\.weights|trainer\.precision")
MOST = 200  # combinations of their values that are looked at


def check_inputs(space: SearchSpace, composer: JobComposer, *, fetch: bool) -> None:
    """See that every trial's device, data and weights are there, for each value that a searched key can have.

    By the functions that a run calls, as far as they are cheap: no image is decoded.

    Args:
        fetch: weights that a run would download are downloaded now; without, they are taken to be there.

    Raises:
        UserError: what a trial would say, for each mistake once.
    """
    from da6401.data.sources import (
        check_training_data,  # torch: seconds, which the check of a command need not wait for
    )
    from da6401.models.build import check_weights
    from da6401.training.device import check_precision, choose_device

    def check_device(cfg: RunConfig) -> None:
        check_precision(cfg.trainer.precision, choose_device(cfg.device))

    checks: list[tuple[Callable[[RunConfig], object], Callable[[RunConfig], None]]] = [
        (lambda cfg: (cfg.device, cfg.trainer.precision), check_device),
        (lambda cfg: cfg.data, lambda cfg: check_training_data(cfg.data)),
        (lambda cfg: cfg.model, lambda cfg: check_weights(cfg.model, image_size=cfg.data.image_size, fetch=fetch)),
    ]
    told: dict[str, UserError] = {}
    seen: set[str] = set()
    for cfg in _configs(space, composer):
        for need, check in checks:
            key = repr(need(cfg))
            if key in seen:
                continue
            seen.add(key)
            try:
                check(cfg)
            except UserError as error:
                told.setdefault(str(error), error)
    if len(told) == 1:
        raise next(iter(told.values()))
    if told:
        raise UserError("\n".join(told))


def _configs(space: SearchSpace, composer: JobComposer) -> Iterator[RunConfig]:
    """The trials' configurations, as far as they differ in what they need."""
    needs = tuple(each for each in space.parameters if NEEDS.fullmatch(each.key) and each.is_finite)
    for point in itertools.islice(dataclasses.replace(space, parameters=needs).points(), MOST):
        try:
            yield composer.config_of(Job(tuple(space.overrides(point))))
        except ConfigError:  # other searched keys would have to fit to these; the trials say what does not
            continue
