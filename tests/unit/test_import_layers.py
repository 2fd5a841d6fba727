"""Every room of the package imports only rooms above it in ORDER. The source is parsed, not run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "da6401"

# A room may import the rooms of earlier rows; rooms of one row do not import each other.
ORDER: tuple[tuple[str, ...], ...] = (
    ("machine", "errors", "redact"),
    ("runs",),
    ("registry",),  # below what it lists: the configuration asks it, and it names the modules that fill it as texts
    ("metrics",),
    ("config",),
    ("plugins",),
    ("data",),
    ("models",),
    ("training",),
    ("study",),
    ("tune",),
    ("sweep", "report"),
    ("commands",),
    ("notebook",),
    ("cli",),
    ("api",),
    ("__main__",),
)
ROOT_MODULES = 8  # at most
ROW = {part: row for row, parts in enumerate(ORDER) for part in parts}

KNOW_HYDRA = ("config", "sweep", "cli")
HYDRA = {"hydra", "omegaconf", "optuna", "hydra_plugins"}
TORCH = {"torch", "torchvision"}
LIGHT_MODULES = (
    "errors",
    "config.schema",
    "config.validate",
    "config.metrics",
    "config.objective_rules",
    "study.objective",
)
TRAINS = tuple(
    f"training.{module}" for module in ("epoch_inputs", "frozen_features", "learner", "loop", "optim", "state")
)
READ_RUN_FOLDERS = ("sweep", "report")  # and never train by themselves: a sweep launches runs


def modules() -> dict[str, Path]:
    """Every module under its name within the package, such as config.schema; a package's __init__ is the package."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = file
    del found["__init__"]
    return found


def imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a module's source imports, inside functions and conditions too.

    ``from a import b`` gives both a and a.b: b may be a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ("da6401." + module).split(".")
                package = here[: len(here) - node.level + (1 if is_package else 0)]
                base = ".".join([*package, base]).rstrip(".")
            yield node.lineno, base
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def imports_of(module: str) -> list[tuple[int, str]]:
    file = modules()[module]
    return list(imports(file.read_text(encoding="utf-8"), module, is_package=file.name == "__init__.py"))


def part_of(module: str) -> str:
    return module.partition(".")[0]


def inner_imports(module: str) -> Iterator[tuple[int, str]]:
    """The imports from within da6401, without that prefix."""
    for line, name in imports_of(module):
        if name.startswith("da6401."):
            yield line, name.removeprefix("da6401.")


def upward(module: str, imported: list[tuple[int, str]]) -> list[str]:
    """The imports of a module that go up, or sideways to another part of its row."""
    own = part_of(module)
    return [
        f"line {line}: {module} imports {name}"
        for line, name in imported
        if part_of(name) in ROW and part_of(name) != own and ROW[part_of(name)] >= ROW[own]
    ]


MODULES = sorted(modules())


def test_the_glob_finds_the_package() -> None:
    assert len(MODULES) >= 5, f"only {MODULES} under {PACKAGE}: is the path still right?"
    assert {"errors", "config.schema", "training.tracking"} <= set(MODULES)


def test_the_root_holds_few_modules_and_every_room_says_what_may_enter() -> None:
    root = sorted(path.stem for path in PACKAGE.glob("*.py"))
    assert len(root) <= ROOT_MODULES, f"{root}: a new module belongs into a room"
    rooms = [folder for folder in PACKAGE.rglob("*/") if folder.name != "__pycache__" and any(folder.glob("*.py"))]
    assert len(rooms) >= 10
    for room in rooms:
        sentence = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
        assert sentence, f"{room.name}/__init__.py: say in one sentence what may enter"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_place(module: str) -> None:
    assert part_of(module) in ROW, f"da6401/{part_of(module)} is new: place it in ORDER, above all that it imports"


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) in ROW])
def test_no_module_imports_a_higher_one(module: str) -> None:
    wrong = upward(module, list(inner_imports(module)))
    assert not wrong, "data flows one way:\n" + "\n".join(wrong)


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) not in KNOW_HYDRA])
def test_only_config_sweep_and_cli_know_hydra(module: str) -> None:
    known = {"optuna"} if part_of(module) in ("study", "report", "notebook") else set()  # they open studies
    wrong = [f"line {line}: {name}" for line, name in imports_of(module) if part_of(name) in HYDRA - known]
    assert not wrong, f"{module} should take plain typed values: {wrong}"


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) in ("config", "errors", "report")])
def test_what_must_be_quick_never_names_torch(module: str) -> None:
    wrong = [f"line {line}: {name}" for line, name in imports_of(module) if part_of(name) in TORCH]
    assert not wrong, f"{module} must answer within 3 seconds, and torch takes longer to import: {wrong}"


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_the_lightest_modules_know_neither_torch_nor_hydra(module: str) -> None:
    if module not in MODULES:
        pytest.fail(f"da6401/{module.replace('.', '/')}.py is gone: name its successor in LIGHT_MODULES")
    wrong = [f"line {line}: {name}" for line, name in imports_of(module) if part_of(name) in TORCH | HYDRA]
    assert not wrong


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) in READ_RUN_FOLDERS])
def test_sweep_and_report_never_train(module: str) -> None:
    wrong = [f"line {line}: {name}" for line, name in inner_imports(module) if name.startswith(TRAINS)]
    assert not wrong, f"{module} reads run folders: {wrong}"


@pytest.mark.parametrize("module", MODULES)
def test_a_file_that_a_module_names_is_there(module: str) -> None:
    """In comments and docstrings: they are what a rename leaves behind."""
    text, root = modules()[module].read_text(encoding="utf-8"), PACKAGE.parent
    named = set(re.findall(r"(?<![\w{}/*.-])((?:[a-z_]+/)*[a-z_0-9]+\.py)\b", text))
    missing = [name for name in named if not any(root.glob(f"da6401/**/{name}")) and not (root / name).is_file()]
    assert not missing, f"{module} names {missing}, which is no file of this repository"


@pytest.mark.parametrize("module", MODULES)
def test_files_stay_small_and_have_a_subject(module: str) -> None:
    lines = len(modules()[module].read_text(encoding="utf-8").splitlines())
    assert lines <= 320, f"{module} has {lines} lines: about 300 is what one reads in a sitting"
    assert not {"utils", "util", "helpers", "common", "misc"} & set(module.split(".")), f"{module}: name its subject"


@pytest.mark.parametrize(
    ("module", "is_package", "source", "wrong"),
    [
        ("data.split", False, "from da6401.training import loop", True),
        ("data.split", False, "from da6401 import training", True),
        ("data.split", False, "def f():\n    import da6401.models.cnn", True),
        ("data.split", False, "from ..training.run import run", True),
        ("data", True, "from ..training.run import run", True),
        ("data.split", False, "from . import decode", False),
        ("data", True, "from .decode import read", False),
        ("data.split", False, "from da6401.errors import DataError\nimport torch", False),
        ("training.loop", False, "from da6401.models import cnn", False),
        ("report.page", False, "from da6401.sweep import suggest", True),
    ],
)
def test_the_parser_sees_what_python_would_import(module: str, is_package: bool, source: str, wrong: bool) -> None:
    found = [
        (line, name.removeprefix("da6401."))
        for line, name in imports(source, module, is_package=is_package)
        if name.startswith("da6401.")
    ]
    assert bool(upward(module, found)) is wrong
