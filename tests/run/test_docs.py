"""The commands of the README and of docs/, run as they stand there with tiny sizes, and their links and anchors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from da6401.commands.verbs import parser
from da6401.config.command_line import check_command_line
from da6401.data import digits
from da6401.errors import UserError
from tests.doc_commands import INDENTED, REASONS, ROOT, WORDS, Command, commands_of, every_command, pages, summary, tiny
from tests.tiny_runs import typed

pytestmark = pytest.mark.integration

COMMANDS = every_command()
RUN = [command for command in COMMANDS if not command.needs]
PAGES = sorted({command.page for command in RUN})
DIGITS = 120  # that are trained on, and as many for test
IMAGES = {"train": 8, "val": 4, "test": 4}  # of each class


def draw(folder: Path, count: int, tint: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng([tint, *str(folder).encode()])
    for number in range(count):
        pixels = random.integers(0, 80, (32, 32, 3), dtype=np.uint8)
        pixels[..., tint] += 150
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: images, photographs, plugins, and a run."""
    place = tmp_path_factory.mktemp("docs")
    for split, count in IMAGES.items():
        for tint, name in enumerate(("red", "green", "blue")):
            draw(place / "path/to/images" / split / name, count, tint)
    draw(place / "path/to/photos", 2, 1)
    shutil.copy(place / "path/to/photos/0.jpg", place / "photo.jpg")
    shutil.copytree(ROOT / "docs/examples", place / "docs/examples", ignore=shutil.ignore_patterns("__pycache__"))
    code, _, err = typed(*tiny(["train", "data=folder", "data.root=path/to/images"]), cwd=place)
    assert code == 0, err
    return place


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """data=digits with fewer images."""
    grey_NHW, labels_N, rest, test = digits._digits()
    monkeypatch.setattr(digits, "_digits", lambda: (grey_NHW, labels_N, rest[:DIGITS], test[:DIGITS]))


def unknown_words(words: Sequence[str], *, multirun: bool) -> list[str]:
    """The lines of the message that speak of a word that there is not; files, weights and hosts may be missing."""
    try:
        check_command_line(list(words), multirun=multirun)
    except UserError as error:
        return [line for line in str(error).splitlines() if "no such" in line or "must be" in line]
    return []


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(page: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = Path(shutil.copytree(place, tmp_path / "page"))
    for command in commands_of(ROOT / page):
        if command.needs:
            continue
        name, *words = command.words
        assert name == "da6401", f"{command}: only da6401 can be run here; give the block a title with the reason"
        begun = time.monotonic()
        code, out, err = typed(*tiny(words), cwd=folder)
        print(f"{time.monotonic() - begun:.1f} s: {command.text}")
        assert code == command.exit_code, f"{command.text}\n{out[-2000:]}\n{err[-2000:]}"
        assert "Traceback" not in err


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.needs], ids=lambda c: f"{c.page}: {c.text[:60]}")
def test_what_is_not_run_has_a_reason_and_is_a_command_that_there_is(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.needs in REASONS
    name, *words = command.words
    assert name in WORDS or "=" in name, f"{command.text}: what is this?"
    if name != "da6401":
        return
    monkeypatch.chdir(place)
    if words[0] == "train":
        plain = [word for word in words[1:] if not word.startswith("-")]
        assert not unknown_words(plain, multirun="--multirun" in words or "-m" in words), command.text
    elif words[0] == "tune":
        assert "--minutes" in words
    else:
        parser().parse_args(words)


def test_no_command_stands_outside_a_block() -> None:
    """An indented block would not be run, and no one would notice."""
    wrong = {page.name: INDENTED.findall(page.read_text(encoding="utf-8")) for page in pages()}
    assert not {name: found for name, found in wrong.items() if found}


def test_most_commands_are_run() -> None:
    print(summary(COMMANDS))
    assert len(RUN) >= 0.5 * len(COMMANDS) > 20, summary(COMMANDS)


def test_the_site_is_built_without_a_wrong_link_or_anchor(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", str(ROOT / "mkdocs.yml")]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run([*words, "--site-dir", str(tmp_path / "site")], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    made = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    written = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in pages()[1:]}
    assert {name.replace("README.html", "index.html") for name in written} <= made
    text = (tmp_path / "site" / "tune.html").read_text(encoding="utf-8")
    assert 'href="benchmarks/hour.html"' in text, "a link to a page that stands outside docs/"
    loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+stylesheet[^>]+href="([^"]+)"', text)
    assert len(loaded) >= 3
    assert not [each for each in loaded if "//" in "".join(each)], "nothing is loaded from elsewhere"


def test_the_readme_is_one_screen_and_a_picture() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 65
    assert text.index("make demo") < text.index("make test") < 400
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert (ROOT / picture).stat().st_size < 100_000
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / target).exists(), target
