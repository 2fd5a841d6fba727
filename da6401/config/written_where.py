"""Where a key was written: on the command line, or in which YAML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml


def written_where(key: str, overrides: Sequence[str], folders: Sequence[Path]) -> str:
    """Where an unknown key was written, as " (...)": the command line or a YAML file."""
    for text in overrides:
        if text.lstrip("+~").startswith((f"{key}=", f"{key}.")):
            return " (on the command line)"
    for folder in reversed(folders):
        for file in sorted(folder.rglob("*.yaml")):
            if key in _dotted_keys(file, folder):
                return f" (in {file})"
    return ""


def _dotted_keys(file: Path, folder: Path) -> set[str]:
    text = file.read_text(encoding="utf-8")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        return set()
    group = file.parent.relative_to(folder).as_posix()
    is_global = group == "." or "@package _global_" in text

    def walk(node: Any, prefix: str) -> Iterator[str]:
        if isinstance(node, dict):
            for name, value in node.items():
                yield f"{prefix}{name}"
                yield from walk(value, f"{prefix}{name}.")

    return set(walk(tree, "" if is_global else group.partition("/")[0] + "."))  # lab/x is an option of its group
