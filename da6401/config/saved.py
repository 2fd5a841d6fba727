"""Checks of a saved config, which may come from anyone; and the files of .hydra/, without passwords."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from da6401.errors import ConfigError
from da6401.redact import redacted, safe

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml where PyYAML was built with it: ten times as fast


def refuse_code(tree: Mapping[str, Any], path: Path) -> None:
    """A saved config holds values alone: nothing that names code, reads the environment, or controls Hydra.

    Raises:
        ConfigError: every such key, by its name.
    """
    problems = [f"{safe(key)}: {reason}; refused in {safe(path)}, mend it there" for key, reason in _forbidden(tree)]
    if problems:
        raise ConfigError(problems)


def _forbidden(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            dotted = f"{key}.{name}" if key else str(name)
            if str(name).startswith("_target_"):
                yield dotted, "names code to run"
            elif dotted == "hydra" or dotted.startswith(("hydra.", "hydra/")):
                yield dotted, "would control Hydra (its launcher, callbacks, folders)"
            elif "${" in str(name):
                yield dotted, "is an interpolation, and a saved config holds values alone"
            else:
                yield from _forbidden(value, dotted)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _forbidden(value, f"{key}.{index}")
    elif isinstance(node, str) and "${" in node:
        what = "reads the environment" if "oc.env" in node else "is an interpolation, and a saved config holds values"
        yield key, what


def refuse_hydra_overrides(overrides: Sequence[str]) -> None:
    """Overrides of a saved config are key=value: no keys of Hydra, nothing added or deleted.

    Raises:
        ConfigError: every such override.
    """
    problems = []
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0]
        if key.partition(".")[0].partition("/")[0] == "hydra" or "_target_" in key:
            problems.append(f"{safe(key)}: a saved config takes no overrides of Hydra's own; use `da6401 train` for it")
        elif text.startswith(("+", "~")):
            problems.append(f"{safe(text)}: a saved config has all keys already; write {safe(key)}=value")
        elif "${" in text.partition("=")[2]:
            problems.append(f"{safe(key)}: is an interpolation; give the value itself")
    if problems:
        raise ConfigError(problems)


def hydra_files(composed: DictConfig) -> dict[str, str]:
    """.hydra/{config,hydra,overrides}.yaml as Hydra writes them, but without passwords: Hydra cannot leave them out."""
    plain = functools.partial(OmegaConf.to_container, enum_to_str=True)  # interpolations stay as they are written
    hydra = plain(HydraConfig.get())
    assert isinstance(hydra, dict)
    nodes = {"config": plain(composed), "hydra": {"hydra": hydra}, "overrides": hydra["overrides"]["task"]}
    return {f".hydra/{name}.yaml": redacted(_yaml(node)) for name, node in nodes.items()}


def _yaml(node: object) -> str:
    try:
        text: str = yaml.dump(node, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)
    except UnicodeEncodeError:  # a path that is not UTF-8: libyaml has no escape for it
        text = yaml.safe_dump(node, sort_keys=False, allow_unicode=True)
    return text
