"""The printed command of a run, with the plugins of its receipt; a stranger's receipt harms nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from da6401.runs.reproduce_command import reproduce_command


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ([], ""),
        ([{"file": "own model.py", "sha256": "0"}, {"package": "x", "version": "1"}], " --plugin 'own model.py'"),
        ([{"file": 3}, {"file": "a\x1b[2J.py"}, "x", None], ""),
        ("x", ""),
    ],
)
def test_the_command_names_the_plugin_files(plugins: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_text(json.dumps({"plugins": plugins}))
    assert reproduce_command(tmp_path) == f"da6401 reproduce {tmp_path}{words}"


def test_without_a_receipt_the_run_alone_is_named(tmp_path: Path) -> None:
    assert reproduce_command(tmp_path) == f"da6401 reproduce {tmp_path}"
