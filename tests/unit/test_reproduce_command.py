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


def test_a_plugin_file_is_named_as_it_is_reached_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = tmp_path / "work" / "run", tmp_path / "work" / "mine" / "own.py"
    for folder in (run, file.parent):
        folder.mkdir(parents=True)
    file.write_text("")
    receipt = {"plugins": [{"file": "own.py", "sha256": "0"}], "plugin_files": [str(file)]}
    (run / "receipt.json").write_text(json.dumps(receipt))
    monkeypatch.chdir(tmp_path / "work")
    assert reproduce_command(Path("run")) == "da6401 reproduce run --plugin mine/own.py"
    assert reproduce_command(Path("run"), absolute=True) == f"da6401 reproduce {run} --plugin {file}"
    monkeypatch.chdir(run)
    assert reproduce_command(Path()) == f"da6401 reproduce . --plugin {file}"
    file.unlink()
    assert reproduce_command(Path()) == "da6401 reproduce . --plugin own.py"


@pytest.mark.parametrize("place", ["run/own.py", "{run}/own.py", "{run}/../run/own.py", "/dev/null/own.py", 3])
def test_a_file_that_came_with_the_run_or_is_not_there_is_not_named(
    place: str | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "own.py").write_text("")
    files = [place.format(run=run) if isinstance(place, str) else place]
    (run / "receipt.json").write_text(json.dumps({"plugins": [{"file": "own.py"}], "plugin_files": files}))
    monkeypatch.chdir(tmp_path)
    assert reproduce_command(Path("run")) == "da6401 reproduce run --plugin own.py"


def test_without_a_receipt_the_run_alone_is_named(tmp_path: Path) -> None:
    assert reproduce_command(tmp_path) == f"da6401 reproduce {tmp_path}"
