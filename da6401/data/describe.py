"""The output of `da6401 data`: tables on a terminal, plain columns through a pipe."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from da6401.data.cache.cache_folder import EntryInfo, gigabytes, in_use
from da6401.data.tree_check import TreeReport
from da6401.redact import one_line

MOST_DUPLICATES = 200  # groups that are listed; of bad files and leaks all are


def print_check(report: TreeReport, console: Console) -> None:
    """`da6401 data check`: counts, every problem, and the verdict."""
    _line(console, f"Data set: {report.root}")
    print_counts(report, console)
    _section(console, "Problems of the tree", list(report.problems))
    _section(console, "Unusable files", [f"{file.name}: {file.reason}" for file in report.bad])
    _section(console, "Leakage: the same image in two splits", [" = ".join(group) for group in report.leaks])
    _section(console, "Leakage: near-duplicates in two splits", _first([pair.text for pair in report.near]))
    _section(console, "Warning: the same image under two classes", [" = ".join(group) for group in report.conflicts])
    doubled = _first([" = ".join(group) for group in report.duplicates])
    _section(console, "Warning: duplicates within a split", doubled)
    _section(console, "Ignored, outside class folders", list(report.loose))
    _section(console, "Notes", list(report.notes))

    _print_imbalance(report, console)
    found = [
        _counted(len(report.problems), "problem of the tree", "problems of the tree"),
        _counted(len(report.bad), "unusable file", "unusable files"),
        _counted(len(report.leaks), "image in two splits", "images in two splits"),
        *([_counted(len(report.near), "pair", "pairs") + " of near-duplicates in two splits"] if report.near else []),
        _counted(len(report.conflicts), "image under two classes", "images under two classes"),
        _counted(len(report.duplicates), "group of duplicates", "groups of duplicates"),
    ]
    verdict = "clean" if report.clean else "NOT CLEAN"
    _line(console, f"{verdict}: {len(report.files):,} readable images; {', '.join(found)}")
    if report.bad:
        _line(console, "Mend or delete the unusable files, or train without them: data.bad_files=skip")


def print_cache(folder: Path, entries: Sequence[EntryInfo], console: Console) -> None:
    """`da6401 data cache`: the entries, the last used first."""
    total = sum(entry.size_bytes for entry in entries)
    _line(console, f"Cache: {folder}, {_counted(len(entries), 'entry', 'entries')}, {gigabytes(total)}")
    if not entries:
        return
    table = Table("key", "kind", "size", "last used", "what", box=box.SIMPLE_HEAD)
    for entry in reversed(entries):
        used = f"{datetime.fromtimestamp(entry.last_used):%Y-%m-%d %H:%M}{', in use' if in_use(entry) else ''}"
        table.add_row(entry.key[:12], entry.kind, gigabytes(entry.size_bytes), used, escape(entry.label))
    console.print(table)
    _line(console, "Clear one: da6401 data cache --clear KEY; everything: --clear all")


def print_info(report: TreeReport, console: Console) -> None:
    """`da6401 data info`: counts, modes, sizes, and which folder is which split."""
    _line(console, f"Data set: {report.root}")
    print_counts(report, console)
    if report.files:
        headers = [file.header for file in report.files]
        _line(console, f"Formats: {_tally(Counter(header.format for header in headers))}")
        _line(console, f"Modes:   {_tally(Counter(header.mode for header in headers))}")
        _line(console, f"Width:   {_range([header.width for header in headers])}")
        _line(console, f"Height:  {_range([header.height for header in headers])}")
        _line(console, f"Bytes:   {sum(file.size_bytes for file in report.files):,}")
    _print_imbalance(report, console)
    for problem in report.problems:
        _line(console, f"Problem: {problem}")
    if report.bad:
        _line(console, f"Unusable files: {len(report.bad)}; `da6401 data check` names them")
    for note in report.notes if report.used or report.layout is None else ():
        _line(console, f"Note: {note}")
    for line in report.used:
        _line(console, line)


def print_counts(report: TreeReport, console: Console) -> None:
    """Readable images of each class in each split."""
    counts = {split: report.counts(split) for split in report.splits}
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, show_footer=True)
    table.add_column("class", footer="all", overflow="fold")
    for split in report.splits:
        table.add_column(split, footer=f"{counts[split].total():,}", justify="right", no_wrap=True)
    for name in report.class_names:
        table.add_row(escape(one_line(name)), *(f"{counts[split][name]:,}" for split in report.splits))
    console.print(table)


def _first(lines: list[str]) -> list[str]:
    """The first lines, and how many there are more."""
    rest = len(lines) - MOST_DUPLICATES
    return lines if rest <= 0 else [*lines[:MOST_DUPLICATES], f"... and {rest} more"]


def _section(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        _line(console, f"{title} ({len(lines)}):")
        for line in lines:
            _line(console, f"  {line}")


def _line(console: Console, text: str) -> None:
    """One line without markup, colours, wrapping or control characters."""
    console.print(one_line(text), markup=False, highlight=False, soft_wrap=True, emoji=False)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _tally(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


def _range(values: Sequence[int]) -> str:
    return f"{min(values)} to {max(values)} px, median {statistics.median(values):g}"


def _print_imbalance(report: TreeReport, console: Console) -> None:
    counts = [count for count in report.counts(report.splits[0]).values() if count]  # of train
    if counts and max(counts) >= 1.5 * min(counts):
        _line(
            console, f"Unbalanced: the largest class of train has {max(counts) / min(counts):.1f} times the images of "
            "the smallest (trainer.class_weights=true weighs them)",
        )  # fmt: skip
