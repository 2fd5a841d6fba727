"""Checks the device, data and weights of all trials before the first one starts."""

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

# Searched keys that decide which data, weights and device a trial needs.
NEEDS = re.compile(r"(data|model|experiment|trainer)(/.*)?|data\..*|model\.weights|trainer\.precision")
MOST = 200  # combinations of their values that are checked


def check_inputs(space: SearchSpace, composer: JobComposer, *, fetch: bool) -> None:
    """Check that every trial's device, data and weights exist, for each value of the searched keys.

    Calls the same functions as a run, the cheap ones: no image is decoded.

    Args:
        fetch: download now what a run would download; False takes such weights to exist.

    Raises:
        UserError: all different errors that trials would end with.
    """
    from da6401.data.sources import check_training_data
    from da6401.models.build import check_weights  # imports torch, which takes seconds
    from da6401.training.device import check_precision, choose_device

    def check_device(cfg: RunConfig) -> None:
        check_precision(cfg.trainer.precision, choose_device(cfg.device))

    checks: list[tuple[Callable[[RunConfig], object], Callable[[RunConfig], None]]] = [
        (lambda cfg: (cfg.device, cfg.trainer.precision), check_device),
        (lambda cfg: cfg.data, lambda cfg: check_training_data(cfg.data)),
        (lambda cfg: cfg.model, lambda cfg: check_weights(cfg.model, image_size=cfg.data.image_size, fetch=fetch)),
    ]
    errors: dict[str, UserError] = {}
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
                errors.setdefault(str(error), error)
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        raise UserError("\n".join(errors))


def _configs(space: SearchSpace, composer: JobComposer) -> Iterator[RunConfig]:
    """One configuration for each combination of the values that decide what a trial needs."""
    needs = tuple(each for each in space.parameters if NEEDS.fullmatch(each.key) and each.is_finite)
    for point in itertools.islice(dataclasses.replace(space, parameters=needs).points(), MOST):
        try:
            yield composer.config_of(Job(tuple(space.overrides(point))))
        except ConfigError:  # other searched keys would have to change too; the trials report it
            continue
