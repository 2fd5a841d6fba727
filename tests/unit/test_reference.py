"""The written page of configuration keys is the schema's."""

from __future__ import annotations

import re
from pathlib import Path

from da6401.commands import commands_page as commands
from da6401.config.reference import document
from da6401.config.validate import documented_keys
from da6401.registry import BACKBONES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), (
        "run `python -m da6401.config.reference > docs/configuration.md`"
    )


def test_the_page_names_every_key() -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name, _, _ in documented_keys() if f"`{name}`" not in text]
    assert missing == []


def test_the_commands_page_is_written_from_the_parsers() -> None:
    page = Path(__file__).parents[2] / "docs" / "commands.md"
    assert page.read_text(encoding="utf-8") == commands.document(), (
        "run `python -m da6401.commands.commands_page > docs/commands.md`"
    )


def test_the_page_on_backbones_counts_those_that_are_listed() -> None:
    page = Path(__file__).parents[2] / "docs" / "sweeps.md"
    (count,) = re.findall(r"(\w+) backbones have names of their own", page.read_text(encoding="utf-8"))
    numbers = {10: "Ten", 11: "Eleven", 12: "Twelve", 13: "Thirteen", 14: "Fourteen", 15: "Fifteen"}
    assert count == numbers[len(BACKBONES)]
