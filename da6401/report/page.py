"""The page: one HTML file with its data, style, script and Plotly inside; it loads nothing from elsewhere."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import optuna

from da6401.errors import UserError
from da6401.redact import safe
from da6401.report.assignment import ASSIGNMENT_PAGE, assignment_data
from da6401.report.contents import report_data
from da6401.report.pdf import PDF, find_browser, pdf_of, print_page
from da6401.runs.atomic_files import write_text
from da6401.runs.named_folders import folder_of, held_in, is_folder_there, is_one
from da6401.runs.user_outputs import OutputKind

SCRIPTS = ("page_blocks.js", "page_charts.js", "page.js")  # one script to the browser
# Of a report, and of a comparison.
PAGE = OutputKind(
    what="page of da6401", option="--out FILE", begins=re.compile(rb'<!doctype html>\r?\n<html lang="en" data-live="')
)
LONG = 1_000_000  # characters of data, from which on they are compressed: 1,000 trials have 3 million


def report(
    words: Sequence[Path],
    *,
    out: Path | None,
    storage: str | None,
    watch: bool,
    port: int,
    assignment: bool = False,
    pdf: bool = False,
) -> int:
    """Write the report of these runs and sweeps, or serve it until Ctrl-C; the exit code is 0.

    Args:
        words: folders, names of studies, ``latest``; or a folder that holds several, whose index is written.
        out: the page; report.html in the first folder without. While watching, no file is written without it.
        storage: the address of the studies' database, where it is not in the sweep's folder.
        port: of 127.0.0.1, to serve at; 0 takes a free one.
        pdf: print the page, too, as a PDF file beside it.
        assignment: in the order of the assignment's questions; assignment.html in the first folder.

    Raises:
        RunError: a folder that is neither a run's nor a sweep's, or is damaged.
        UserError: the port is taken, there is no browser to print with, the assignment's page cannot be made of
            these, or the page or the PDF file would be written over another file.
    """
    if assignment and watch:
        raise UserError("report: --assignment writes a page to hand in, and --watch follows a sweep; give one of them")
    if pdf and watch:
        raise UserError("report: --pdf prints a page once, and --watch follows a sweep; give one of them")
    browser = find_browser() if pdf else ""
    folders = [_place(word, storage, alone=len(words) == 1 and not assignment) for word in words]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = out or folders[0] / (ASSIGNMENT_PAGE if assignment else "report.html")
    if out is not None or not watch:
        PAGE.check(path)
    if pdf:
        PDF.check(pdf_of(path))
    if watch:
        from da6401.report.serve import serve

        return serve(folders, out=out, storage=storage, port=port)
    data = assignment_data(folders, storage) if assignment else report_data(folders, storage)
    with PAGE.writing():
        write_text(path, page(data, live=False))
    print(f"report: {safe(path)}")
    if pdf:
        print(f"report: {safe(print_page(path, browser))}")
    return 0


def _place(word: Path, storage: str | None, *, alone: bool) -> Path:
    """The folder that a word names. With a study elsewhere any folder may be a sweep's."""
    if is_folder_there(word) and (storage is not None or (alone and not is_one(word) and held_in(word))):
        return word
    return folder_of(word)


def page(data: Mapping[str, Any], *, live: bool) -> str:
    """The HTML of a report; a live one asks its own server for new data."""
    packed, plotly_hash = _plotly()
    script = "\n".join(map(_asset, SCRIPTS))
    source = "'self'" if live else "'none'"
    scripts = f"'{_hash(script)}' '{plotly_hash}'"
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {source}; base-uri 'none'; form-action 'none'"
    )
    filled = {
        "live": "yes" if live else "no", "policy": policy, "title": html.escape(safe(data["title"])),
        "style": _asset("page.css"), "script": script, "plotly": packed,
    }  # fmt: skip
    text = as_json(data)
    is_long = len(text) > LONG
    filled |= {"packed": "yes" if is_long else "no", "data": _packed(text) if is_long else text}
    # In one pass: a class called {{script}} is not replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found.group(1)], _asset("template.html"))


def as_json(data: Mapping[str, Any]) -> str:
    """JSON that may stand inside a script element: no < in it, and nothing but ASCII."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return resources.files("da6401.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _plotly() -> tuple[str, str]:
    """The JavaScript of the plotly package, compressed (1.9 MB instead of 4.8), and its hash for the policy."""
    code = resources.files("plotly").joinpath("package_data/plotly.min.js").read_bytes()
    text = code.decode("utf-8")
    return _packed(text), _hash(text)


def _packed(text: str) -> str:
    """A text compressed, as the page's script unpacks it."""
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
