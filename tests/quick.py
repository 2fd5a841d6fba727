"""The tests that a change most likely breaks, in less than a minute: `make quick`.

    python -m tests.quick [COMMIT]     # what differs from COMMIT; else from main, and on main from the commit before

First come the test files that changed, then those that import a changed module, the more of their imports the earlier,
then CORE. Tests marked slow are left out, and what has not begun after SECONDS is skipped: `make test` and
`make integration` run them.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 40  # with a start of a few seconds before, and the last test after
UNTIL = "DA6401_TESTS_UNTIL"  # conftest.py reads it: seconds since the epoch
CORE = (
    "tests/unit/test_import_layers.py",
    "tests/run/test_run.py",
    "tests/run/test_verbs.py",
    "tests/run/test_api.py",
    "tests/run/test_command_line.py",
)


def main() -> int:
    """Run them; the exit code is pytest's."""
    changed = changed_files(sys.argv[1] if len(sys.argv) > 1 else _base())
    files = chosen(changed, ROOT)
    print(f"{len(changed)} changed files; {', '.join(files)}", flush=True)
    os.environ[UNTIL] = str(time.time() + SECONDS)
    os.chdir(ROOT)
    return pytest.main(["-n", "auto", "--dist", "load", "-rs", "--failed-first", "-m", "not slow", *files])


def chosen(changed: Iterable[str], root: Path) -> list[str]:
    """Test files by how likely these changed files break them, then CORE."""
    changed = set(changed)
    modules = {_module(name) for name in changed if name.endswith(".py")}
    shares = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        name, used = path.relative_to(root).as_posix(), imported(path.read_text(encoding="utf-8"))
        share = 1.0 if name in changed else len(used & modules) / max(1, len(used))
        if share:
            shares[name] = share
    return list(dict.fromkeys([*sorted(shares, key=lambda name: -shares[name]), *CORE]))


def imported(source: str) -> set[str]:
    """The modules of da6401 and tests that a test file imports, or names in a text (where it replaces something)."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.]+", node.value):
            found |= {node.value, node.value.rpartition(".")[0]}
    return {name for name in found if name.partition(".")[0] in ("da6401", "tests") and "." in name}


def changed_files(base: str) -> set[str]:
    """Files that differ from a commit, those that are new among them."""
    lines = _git("diff", "--name-only", base), _git("ls-files", "--others", "--exclude-standard")
    return {line for text in lines for line in text.splitlines()}


def _base() -> str:
    for name in ("main", "origin/main"):
        try:
            common = _git("merge-base", "HEAD", name).strip()
        except subprocess.CalledProcessError:
            continue
        if common != _git("rev-parse", "HEAD").strip():
            return common
    return "HEAD~1"


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
