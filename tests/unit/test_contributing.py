"""The ways through the code that CONTRIBUTING.md describes: every file and name in them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WALKS = {
    title: text
    for title, _, text in (
        part.partition("\n") for part in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## ")[1:]
    )
}
PLACE = re.compile(r"`([\w/]+\.py)(?::\s+([\w.]+))?`")  # such as `models/build.py: build_model`
NAME = re.compile(r"`(_?[a-z]+(?:_[a-z]+)+|[A-Z]\w*[a-z]\w*)`")  # such as `freeze_plan` or `Learner`, without a file


def names_in(file: Path) -> set[str]:
    """What a module defines: functions, classes, Class.method, and what it assigns."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def file_of(place: str) -> Path:
    return ROOT / place if place.startswith("tests/") else ROOT / "da6401" / place


def test_the_walks_are_three_and_short() -> None:
    assert list(WALKS) == ["One training step", "One trial of a sweep", "One new backbone"]
    assert all(len(PLACE.findall(text)) >= 15 for text in WALKS.values())
    assert all(len(text.strip().splitlines()) <= 20 for text in WALKS.values())


@pytest.mark.parametrize("title", WALKS)
def test_every_file_and_name_of_a_walk_exists(title: str) -> None:
    text = WALKS[title]
    files = {place: file_of(place) for place, _ in PLACE.findall(text)}
    assert not [place for place, file in files.items() if not file.is_file()]
    wrong = [f"{place}: {name}" for place, name in PLACE.findall(text) if name and name not in names_in(files[place])]
    assert not wrong
    anywhere = set().union(*(names_in(file) for file in (ROOT / "da6401").rglob("*.py")))
    assert not [name for name in NAME.findall(text) if name not in anywhere]


def test_a_wrong_name_would_be_found() -> None:
    assert PLACE.findall("`models/build.py: built`, `sweep/jobs.py`, `sweep/failures.py:\n   machine_failure`") == [
        ("models/build.py", "built"), ("sweep/jobs.py", ""), ("sweep/failures.py", "machine_failure"),
    ]  # fmt: skip
    assert "built" not in names_in(file_of("models/build.py"))
    assert "Learner.step" in names_in(file_of("training/learner.py"))
