"""Private names of Hydra, each behind a function that says why no public name would do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from da6401.config.private_names import Package

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext
    from omegaconf import DictConfig

HYDRA = Package("hydra-core", ">=1.4.0rc3,<1.5", last="1.4.0rc3")


@HYDRA.names()
def flag_parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """Hydra's own parser of a command line, and its flags: hydra.main parses and runs in one step."""
    from hydra._internal.utils import get_args_parser  # Hydra is imported where it is used

    parser = get_args_parser()
    return parser, [name for action in parser._actions for name in action.option_strings]


@contextmanager
def hydra_config(composed: DictConfig) -> Iterator[None]:
    """Within the block HydraConfig and ``${hydra:...}`` mean this configuration.

    HydraConfig.set_config copies it, which takes as long as a small job, and can not set back to none.
    """
    from hydra.core.hydra_config import HydraConfig

    with HYDRA.names():
        instance = HydraConfig.instance()
        before = instance.cfg
    instance.cfg = cast("HydraConf", composed)
    try:
        yield
    finally:
        instance.cfg = before


@HYDRA.names()
def outcome_of(job: JobReturn) -> Any:
    """What a job returned or raised: JobReturn.return_value raises the error and prints a line of its own."""
    return job._return_value


@HYDRA.names()
def whitelist_of(context: HydraContext) -> Any:
    """What logging may instantiate, for hydra.core.utils.configure_log; Hydra's documents do not mention it."""
    return context.execution_whitelist
