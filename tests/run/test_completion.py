"""Completion in a shell: the script in a real bash, with the command as it is installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from da6401.cli import main

BASH = shutil.which("bash")
LINES = {
    "da6401 tr": ["train "],
    "da6401 train optimizer=sg": ["sgd "],  # bash breaks words at "=", and completes what stands behind it
    "da6401 train --multirun experiment=part_": ["part_a", "part_b"],
    "da6401 train optimizer.l": ["optimizer.lr="],
    "da6401 train --config-dir mine trainer=qui": ["quick "],
    "da6401 train 'optimizer=glob(*)' data=fol": ["folder "],
    "da6401 report mi": [],  # bash goes on with the names of files
}


@pytest.mark.skipif(BASH is None, reason="no bash on this machine")
def test_bash_completes_verbs_groups_options_and_keys(tmp_path: Path) -> None:
    (tmp_path / "mine" / "trainer").mkdir(parents=True)
    (tmp_path / "mine" / "trainer" / "quick.yaml").write_text("epochs: 1\n")
    program = tmp_path / "bin" / "da6401"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m da6401 "$@"\n')
    program.chmod(0o755)
    asked = "\n".join(
        f"COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; _da6401\n"
        "printf '%s|' \"${COMPREPLY[@]}\"; echo; unset COMPREPLY"
        for line in LINES
    )
    script = f'eval "$(da6401 train -sc install=bash)"\ncomplete -p da6401\n{asked}\n'
    script += 'eval "$(da6401 train -sc uninstall=bash)"\ncomplete -p da6401; declare -F _da6401\n'
    root = str(Path(__file__).parents[2])
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    assert BASH is not None
    done = subprocess.run(
        [BASH, "--norc", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": path, "PYTHONPATH": root},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    registered, *answers = done.stdout.splitlines()
    assert "-F _da6401 da6401" in registered
    assert [[word for word in answer.split("|") if word] for answer in answers] == list(LINES.values()), done.stderr
    assert "no completion specification" in done.stderr, "uninstalled"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_their_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-sc", f"install={shell}"]) == 0
    out, _ = capsys.readouterr()
    assert "train -sc query=" in out
    assert "reproduce" in out


@pytest.mark.parametrize("asked", ["install=csh", "instal=bash", ""])
def test_another_shell_is_a_message(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-sc", *([asked] if asked else [])]) == 2
    assert "install=SHELL" in capsys.readouterr().err
