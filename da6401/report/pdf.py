"""A page as a PDF file, printed by the Chromium or Chrome of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from da6401.errors import UserError
from da6401.redact import safe
from da6401.runs.atomic_files import write_atomic
from da6401.runs.user_outputs import OutputKind

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PLACES = (  # where they are not on PATH
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
# People print with a browser that has a window: its files do not name a headless one as their creator.
PDF = OutputKind(
    what="page that da6401 printed",
    option="--out FILE",
    begins=re.compile(rb"%PDF-.*?/Creator \([^\n]*Headless", re.DOTALL),
)
SECONDS = 180  # until a browser that hangs is given up
DRAWING_MS = 60_000  # of the page's own clock: the charts are drawn within it


def find_browser() -> str:
    """The program of a browser that can print.

    Raises:
        UserError: there is none.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    found = found or next((place for place in PLACES if os.access(place, os.X_OK)), None)
    if found is None:
        raise UserError(
            "report --pdf: there is no Chromium or Chrome here to print the page with; install one "
            "(`apt install chromium`, or from google.com/chrome), or leave --pdf out, open the page in any browser and "
            "print it to a PDF"
        )
    return found


def pdf_of(page: Path) -> Path:
    """Where a page's PDF file is written."""
    return page.with_suffix(".pdf")


def print_page(page: Path, browser: str) -> Path:
    """Print a page to a PDF file beside it, in the light colours and without what is there to be clicked.

    Raises:
        UserError: the browser did not print it. WriteError: the file cannot be written.
    """
    out = pdf_of(page)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        printed = Path(folder, "page.pdf")
        words = [
            browser, "--headless", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
            f"--user-data-dir={folder}/profile", "--no-pdf-header-footer", f"--virtual-time-budget={DRAWING_MS}",
            f"--print-to-pdf={printed}", page.absolute().as_uri(),
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # Chromium refuses its sandbox to root
            words.insert(1, "--no-sandbox")
        try:
            done = subprocess.run(words, capture_output=True, timeout=SECONDS, check=False)
            why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        except subprocess.TimeoutExpired:
            why = f"it took more than {SECONDS} s"
        except OSError as error:
            why = str(error)
        content = printed.read_bytes() if printed.is_file() else b""
    if not content.startswith(b"%PDF"):
        raise UserError(
            f"report --pdf: {safe(browser)} did not print {safe(page)} ({safe(why) or 'no reason given'}); open the "
            "page in a browser and print it to a PDF"
        )
    with PDF.writing():
        write_atomic(out, lambda file: file.write(content))
    return out
