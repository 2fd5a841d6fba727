"""What the code of a checkout looks like in numbers: one table, beside another commit's.

python -m benchmarks.house [FOLDER] [--against COMMIT] [--places]

Nothing of the checkout is imported or run: its files are parsed.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
import tempfile
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE, TESTS = "da6401", "tests"
ADAPTERS = "_internals"  # how the file stems of the modules end in which private names of other packages may stand
LONG = 80  # lines of a function

# Private names that the package may also define itself: on any object but `self` and `cls` they are another package's.
FOREIGN = {
    "_cached_frozen_trial", "_contains", "_return_value", "_storage", "_study_id", "_suggest", "_thread_local",
    "_trial_id", "_value",
}  # fmt: skip
UNDOCUMENTED = {"HydraConfig.instance", "execution_whitelist"}  # without an underscore, and private all the same
PUBLIC = {"_asdict", "_exit", "_fields", "_make", "_replace"}  # documented, whatever their first letter
NOT_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file; its path is that within the package or the tests."""

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def functions(self) -> list[tuple[str, Function]]:
        """Every function and method with its place, such as ``train/loop.py: fit``, inner ones too."""
        found: list[tuple[str, Function]] = []

        def visit(node: ast.AST, names: tuple[str, ...]) -> None:
            for child in ast.iter_child_nodes(node):
                inner = (*names, child.name) if isinstance(child, Function | ast.ClassDef) else names
                if isinstance(child, Function):
                    found.append((f"{self.path}: {'.'.join(inner)}", child))
                visit(child, inner)

        visit(self.tree, ())
        return found


@dataclass(frozen=True)
class Found:
    """A number, and where it comes from."""

    number: int
    places: list[str]

    def cell(self, *, most: int = 3) -> str:
        """The number and the first places, for a table."""
        more = [f"and {len(self.places) - most} more"] if len(self.places) > most else []
        told = ", ".join([*self.places[:most], *more])
        return f"{self.number:,}" + (f" ({told})" if told else "")


@dataclass(frozen=True)
class Checkout:
    package: list[Source]
    tests: list[Source]


def read(folder: Path) -> Checkout:
    """All Python files of a checkout's package and tests.

    Raises:
        SystemExit: there is no package in the folder.
    """
    package, tests = (
        [Source(path.relative_to(root), path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.py"))]
        for root in (folder / PACKAGE, folder / TESTS)
    )
    if not package:
        raise SystemExit(f"{folder}: no folder {PACKAGE}/ with Python files; give a checkout's folder")
    return Checkout(package, tests)


def code_lines(source: Source) -> int:
    """Lines that hold code: no comments, blanks or docstrings. A string over several lines is as long as it is."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(source.tree):
        if isinstance(node, Function | ast.ClassDef | ast.Module) and ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(_span(node.body[0]))
    return len(lines)


def _span(node: ast.stmt) -> range:
    assert node.end_lineno is not None, "ast.parse knows it"
    return range(node.lineno, node.end_lineno + 1)


def root_modules(checkout: Checkout) -> Found:
    names = [source.path.stem for source in checkout.package if len(source.path.parts) == 1]
    loose = [name for name in names if name not in ("__init__", "__main__")]
    return Found(len(loose), loose)


def longest_file(checkout: Checkout) -> Found:
    longest = max(checkout.package, key=lambda source: source.lines)
    return Found(longest.lines, [str(longest.path)])


def function_lengths(checkout: Checkout) -> list[tuple[int, str]]:
    """Lines from ``def`` to the end, docstring and inner functions among them, longest first."""
    found = [(len(_span(node)), place) for source in checkout.package for place, node in source.functions]
    return sorted(found, key=lambda each: (-each[0], each[1]))


def longest_function(checkout: Checkout) -> Found:
    length, place = function_lengths(checkout)[0]
    return Found(length, [place])


def long_functions(checkout: Checkout) -> Found:
    places = [f"{place} {length}" for length, place in function_lengths(checkout) if length > LONG]
    return Found(len(places), places)


def most_parameters(checkout: Checkout) -> Found:
    def count(node: Function) -> int:
        given = node.args
        positional = [*given.posonlyargs, *given.args]
        bound = bool(positional) and positional[0].arg in ("self", "cls")
        return (
            len(positional)
            - bound
            + len(given.kwonlyargs)
            + sum(each is not None for each in (given.vararg, given.kwarg))
        )

    counted = [(count(node), place) for source in checkout.package for place, node in source.functions]
    most = max(number for number, _ in counted)
    return Found(most, [place for number, place in counted if number == most])


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.strip("_") != "" and name not in PUBLIC


def own_names(sources: list[Source]) -> set[str]:
    """Every name that these files define: functions, classes, variables, and attributes of self and cls."""
    names: set[str] = set()
    for node in (node for source in sources for node in ast.walk(source.tree)):
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            names.add(node.attr)
    return names


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_names(source: Source, own: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each use of another package's private name: imports, attributes, and getattr with a text.

    A private name that the package does not define is another's, even on ``self``: it is inherited.
    """
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names) | ast.ImportFrom(names=names, level=0):
                before = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                for name in (before + alias.name for alias in names):
                    if name.partition(".")[0] != PACKAGE and any(map(is_private, name.split("."))):
                        yield node.lineno, name
            case ast.Attribute(value, name):
                dotted = f"{value.id}.{name}" if isinstance(value, ast.Name) else name
                foreign = name not in own or (name in FOREIGN and not _is_self(value))
                if (is_private(name) and foreign) or {name, dotted} & UNDOCUMENTED:
                    yield node.lineno, name
            case ast.Call(ast.Name("getattr" | "setattr" | "hasattr" | "delattr"), [_, ast.Constant(str(name)), *_]):
                if is_private(name) and (name not in own or name in FOREIGN):
                    yield node.lineno, name


def private_uses(checkout: Checkout, *, in_adapters: bool = False) -> list[tuple[str, str]]:
    """Place and name of each use outside the adapters, or in them."""
    own = own_names(checkout.package)
    return [
        (f"{source.path}:{line}", name)
        for source in checkout.package
        if source.path.stem.endswith(ADAPTERS) is in_adapters
        for line, name in sorted(private_names(source, own))
    ]


def private_places(checkout: Checkout) -> Found:
    uses = private_uses(checkout)
    return Found(len(uses), [f"{place} {name}" for place, name in uses])


def by_file(found: Found) -> Found:
    """The files of some places, each with its count, and how many files they are."""
    files = Counter(place.partition(":")[0] for place in found.places)
    return Found(len(files), [f"{file} {count}" for file, count in files.most_common()])


def adapters(checkout: Checkout) -> Found:
    names = [str(source.path) for source in checkout.package if source.path.stem.endswith(ADAPTERS)]
    return Found(len(names), names)


def shared_stems(checkout: Checkout) -> Found:
    count = Counter(source.path.stem for source in checkout.package)
    twice = sorted(stem for stem, number in count.items() if number > 1 and stem != "__init__")
    return Found(len(twice), twice)


def best_trial_homes(checkout: Checkout) -> Found:
    """Functions that decide by themselves which trial is better.

    A guess by form: the key of sorted, sort, min or max reads a trial's value, or the cost made of it; a frame is
    sorted by "value"; Optuna's study is asked for its best; all values are compared with others' (a Pareto front).
    """
    places = [
        place
        for source in checkout.package
        for place, node in source.functions
        if any(_decides(each, source) for each in _without_inner_functions(node))
    ]
    return Found(len(places), places)


def _without_inner_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function):
            yield child
            yield from _without_inner_functions(child)


def _decides(node: ast.AST, source: Source) -> bool:
    match node:
        case ast.Call(func=ast.Name("sorted" | "min" | "max") | ast.Attribute(attr="sort" | "nlargest" | "nsmallest")):
            keys = [each.value for each in node.keywords if each.arg == "key"]
            names = {key.id for key in keys if isinstance(key, ast.Name)}
            named = [function for _, function in source.functions if function.name in names]
            return any(_reads_value(each) for key in [*keys, *named] for each in ast.walk(key))
        case ast.Call(func=ast.Attribute(attr="sort_values"), args=[ast.Constant("value"), *_]):
            return True
        case ast.Call(func=ast.Name("any" | "all")):
            inner = (each.func for each in ast.walk(node) if isinstance(each, ast.Call))
            return any(isinstance(each, ast.Attribute) and each.attr == "better" for each in inner)
        case ast.Attribute(
            ast.Name("study") | ast.Attribute(attr="study"), "best_trial" | "best_trials" | "best_value"
        ):
            return True
    return False


def _reads_value(node: ast.AST) -> bool:
    """Whether this is trial.value, t.values or t.reached(...), or the cost that the package's objective makes of it."""
    match node:
        case ast.Attribute(ast.Name(name), "value" | "values" | "reached"):
            return name == "t" or "trial" in name
        case ast.Name(name) | ast.Attribute(attr=name):
            return name.strip("_") in ("cost", "costs")
    return False


ROWS: dict[str, Callable[[Checkout], Found]] = {
    "modules in the package's root": root_modules,
    "files of the package": lambda checkout: Found(len(checkout.package), []),
    "lines of the package": lambda checkout: Found(sum(source.lines for source in checkout.package), []),
    "code lines of the package": lambda checkout: Found(sum(map(code_lines, checkout.package)), []),
    "lines of the tests": lambda checkout: Found(sum(source.lines for source in checkout.tests), []),
    "code lines of the tests": lambda checkout: Found(sum(map(code_lines, checkout.tests)), []),
    "longest file, lines": longest_file,
    "longest function, lines": longest_function,
    f"functions over {LONG} lines": long_functions,
    "most parameters of one function": most_parameters,
    "private names of other packages outside the adapters, uses": private_places,
    "files with such uses": lambda checkout: by_file(private_places(checkout)),
    f"adapters (*{ADAPTERS}.py)": adapters,
    "file stems used twice": shared_stems,
    "functions that decide which trial is best": best_trial_homes,
    "files with such functions": lambda checkout: by_file(best_trial_homes(checkout)),
}


def measure(folder: Path) -> dict[str, Found]:
    """Every row's number for the checkout in this folder."""
    checkout = read(folder)
    return {row: count(checkout) for row, count in ROWS.items()}


@contextmanager
def files_of(commit: str, *, repository: Path) -> Iterator[Path]:
    """A temporary folder with the files of a commit.

    Raises:
        SystemExit: git does not know the commit.
    """
    done = subprocess.run(["git", "-C", str(repository), "archive", commit], capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{commit}: {done.stderr.decode(errors='replace').strip()}")
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(place, filter="data")
        yield Path(place)


def table(columns: dict[str, dict[str, Found]]) -> str:
    """One Markdown table: a row a measure, a column a checkout."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row} | " + " | ".join(found[row].cell() for found in columns.values()) + " |" for row in ROWS]
    return "\n".join(lines)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument(
        "folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="a checkout; else this one"
    )
    given.add_argument("--against", metavar="COMMIT", help="a second column for this commit of the folder's repository")
    given.add_argument("--places", action="store_true", help="then list every place behind the folder's numbers")
    asked = given.parse_args()
    now = measure(asked.folder)
    columns = {"now": now}
    if asked.against:
        with files_of(asked.against, repository=asked.folder) as before:
            columns = {asked.against: measure(before)} | columns
    print(table(columns))
    if asked.places:
        for row, found in now.items():
            print("\n".join([f"\n{row}: {found.number:,}", *(f"    {place}" for place in found.places)]))


if __name__ == "__main__":
    main()
