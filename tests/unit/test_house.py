"""benchmarks/house.py counts what it says: a small package of which every number is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.house import LONG, ROWS, Found, Source, best_trial_homes, code_lines, main, measure, read

LOOP = '''"""The loop."""

import torch._dynamo
from da6401.sweep import _own
from hydra._internal.utils import get_args_parser, split
from optuna.storages import RDBStorage, _CachedStorage
from . import _sibling


class Loop:
    """A class."""

    _storage = None
    __slots__ = ()

    def fit(self, a, /, b, *rest, c=1, **more):
        """Two lines
        of words."""
        # a comment
        text = """one

three"""

        def inner():
            return text

        return inner

    def stop(self, study, other):
        self._storage = self._inherited
        return study._storage, other._replace(), other.__dict__, other._own


def _own(x, hydra):
    getattr(x, "_singleton"), getattr(x, "public"), hydra.execution_whitelist
    return HydraConfig.instance(), x.instance()


def long():
'''
CHOICE = """
def by_value(trials):
    return sorted(trials, key=lambda t: (-t.values[0], t.number))

def by_name(trials):
    def key(trial):
        return trial.value
    return max(trials, key=key)

def by_frame(frame):
    return frame.sort_values("value")

def by_study(study):
    return study.best_trials

def front(goal, trials):
    return [one for one in trials if not any(goal.better(other, one) for other in trials)]

def by_cost(metric, trials):
    return min(trials, key=metric.cost)

def other_orders(points, trials, frame, study):
    sorted(points, key=lambda point: point.value), sorted(trials, key=lambda trial: trial.number)
    frame.sort_values("number"), study.trials, any(trials), [trial.value for trial in trials]

def exactly_eighty():
"""
FILES = {
    "da6401/__init__.py": '"""A package."""\n',
    "da6401/__main__.py": "",
    "da6401/cli.py": "import sys\n",
    "da6401/train/__init__.py": "",
    "da6401/training/loop.py": LOOP + "    pass\n" * LONG,
    "da6401/sweep/cli.py": CHOICE + "    pass\n" * (LONG - 1),
    "da6401/sweep/optuna_internals.py": "from optuna._imports import try_import\n",
    "tests/test_cli.py": '"""Words."""\n\nassert 1  # yes\n',
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_every_row(checkout: Path) -> None:
    found = measure(checkout)
    package = [text for name, text in FILES.items() if name.startswith("da6401")]
    private = [
        "training/loop.py:3 torch._dynamo",
        "training/loop.py:5 hydra._internal.utils.get_args_parser",
        "training/loop.py:5 hydra._internal.utils.split",
        "training/loop.py:6 optuna.storages._CachedStorage",
        "training/loop.py:30 _inherited",
        "training/loop.py:31 _storage",
        "training/loop.py:35 _singleton",
        "training/loop.py:35 execution_whitelist",
        "training/loop.py:36 instance",
    ]
    deciding = ["by_value", "by_name", "by_frame", "by_study", "front", "by_cost"]
    assert found == {
        "modules in the package's root": Found(1, ["cli"]),
        "files of the package": Found(7, []),
        "lines of the package": Found(sum(len(text.splitlines()) for text in package), []),
        "code lines of the package": Found(22 + LONG + 18 + LONG - 1 + 2, []),
        "lines of the tests": Found(3, []),
        "code lines of the tests": Found(1, []),
        "longest file, lines": Found(39 + LONG, ["training/loop.py"]),
        "longest function, lines": Found(LONG + 1, ["training/loop.py: long"]),
        f"functions over {LONG} lines": Found(1, [f"training/loop.py: long {LONG + 1}"]),
        "most parameters of one function": Found(5, ["training/loop.py: Loop.fit"]),
        "private names of other packages outside the adapters, uses": Found(len(private), private),
        "files with such uses": Found(1, [f"training/loop.py {len(private)}"]),
        "adapters (*_internals.py)": Found(1, ["sweep/optuna_internals.py"]),
        "file stems used twice": Found(1, ["cli"]),
        "functions that decide which trial is best": Found(6, [f"sweep/cli.py: {name}" for name in deciding]),
        "files with such functions": Found(1, ["sweep/cli.py 6"]),
    }


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("# a comment\n\n", 0),
        ('"""A docstring\nof two lines."""\n', 0),
        ('x = """a\n\nb"""\n', 3),
        ('def f():\n    """Words."""\n    return (\n        1\n    )\n', 4),
        ('x = 1\n"""no docstring"""\n', 2),
        ("x = 1; y = 2  # one line\n", 1),
        ("class A:\n    '''Words.'''\n", 1),
    ],
)
def test_code_lines(text: str, count: int) -> None:
    assert code_lines(Source(Path("a.py"), text)) == count


def test_a_second_column_is_a_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*words: str) -> None:
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(checkout), *author, *words], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "before", "--no-gpg-sign")
    (checkout / "da6401" / "api.py").write_text("x = 1\n")
    monkeypatch.setattr(sys, "argv", ["house", str(checkout), "--against", "HEAD", "--places"])
    main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == [
        "| | HEAD | now |",
        "|---|---|---|",
        "| modules in the package's root | 1 (cli) | 2 (api, cli) |",
        "| files of the package | 7 | 8 |",
    ]
    assert len([line for line in printed if line.startswith("|")]) == 2 + len(ROWS)
    at = printed.index("functions that decide which trial is best: 6")
    assert printed[at + 1] == "    sweep/cli.py: by_value"

    monkeypatch.setattr(sys, "argv", ["house", str(checkout), "--against", "no-such-commit"])
    with pytest.raises(SystemExit, match="no-such-commit"):
        main()


def test_a_folder_without_the_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no folder da6401/"):
        measure(tmp_path)


def test_one_function_orders_trials() -> None:
    package = read(Path(__file__).parents[2])
    assert best_trial_homes(package).places == ["study/objective.py: Objective.order"]
