"""`make quick` runs first what a change most likely breaks, and ends in time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests import conftest
from tests.quick import CORE, ROOT, chosen, imported

FILES = {
    "tests/run/test_wide.py": "from da6401.training import loop, run\nfrom da6401 import load_run, train",
    "tests/run/test_near.py": "from da6401.training import loop",
    "tests/run/test_text.py": "import pytest\nwhere = 'da6401.training.loop.fit'\nother = 'da6401.runs.lock.used'",
    "tests/run/test_other.py": "import torch\nfrom da6401.training.run import run",
    "tests/run/test_new.py": "",
}


def test_files_come_in_the_order_of_what_a_change_breaks(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    files = chosen({"da6401/training/loop.py", "tests/run/test_new.py", "README.md"}, tmp_path)
    assert files == [f"tests/run/test_{name}.py" for name in ("new", "near", "text", "wide")] + list(CORE)
    assert chosen({"README.md"}, tmp_path) == list(CORE)


def test_the_core_is_there() -> None:
    assert all((ROOT / name).exists() for name in CORE)


def test_a_module_is_found_however_it_is_imported() -> None:
    source = (
        "import da6401.api\nfrom da6401.data import sources\nfrom tests.pngs import png\nx = 'da6401.cli.main', 'a b'"
    )
    assert imported(source) >= {"da6401.api", "da6401.data.sources", "tests.pngs", "da6401.cli"}


def test_what_has_not_begun_in_time_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    conftest.pytest_runtest_setup()
    monkeypatch.setattr(conftest, "UNTIL", time.time() - 1)
    with pytest.raises(pytest.skip.Exception, match="make test"):
        conftest.pytest_runtest_setup()
