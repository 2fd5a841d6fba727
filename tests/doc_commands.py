"""The commands of the pages: what stands in their code blocks, and how it is run on tiny data.

A block that begins with ```bash holds commands, one that begins with ```console a session, whose commands follow "$ ".
All of them are run, page by page and in their order, in a folder that holds ``path/to/images``, ``path/to/photos``,
``photo.jpg``, the plugins of docs/examples, and a run. A block with the title
"not run here: needs REASON" is not run; readers see the title. Its `da6401` commands are still checked: their
verbs, keys and values are those that there are. `python -m tests.doc_commands` prints how many there are of each.

So that a command takes a second, ``tiny`` changes the sizes in it, and nothing else: epochs, trials, pixels, filters;
and of the digits there are 120.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^(```+)(\w*)([^\n]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="not run here: needs ([^"]+)"')
INDENTED = re.compile(r"^    (?:\$ )?(?:da6401 [a-z]|make |pip install|python -m|wandb |torchrun )", re.MULTILINE)
EXIT = re.compile(r"# exit code (\d+)")
REASONS = (
    "minutes",
    "a network",
    "a cluster",
    "a database",
    "a GPU",
    "a data set",
    "a shell",
    "a server",
    "a second machine",
)
WORDS = (
    "da6401",
    "make",
    "pip",
    "python",
    "python3",
    "git",
    "cd",
    "source",
    "eval",
    "wandb",
    "optuna-dashboard",
    "curl",
    "docker",
    "torchrun",
    "export",
)

# The most that a page's command may ask for when a test runs it.
MOST = {
    "trainer.epochs": 1, "hydra.sweeper.n_trials": 2, "data.image_size": 32, "sweep.confirm_top": 1,
    "sweep.confirm_seeds": 2, "sweep.folds": 2, "model.filters": 4,
}  # fmt: skip
ALWAYS = {"trainer.epochs": "1", "trainer.threads": "1", "data.image_size": "32"}


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: str  # its path below the root
    text: str  # in one line, without its comment
    needs: str  # why it is not run; "" where it is
    exit_code: int = 0

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def pages() -> list[Path]:
    """The README and every page below docs/ that people write commands into."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands_of(page: Path) -> Iterator[Command]:
    """The commands of a page's blocks, in their order."""
    name = page.relative_to(ROOT).as_posix()
    for _, kind, info, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind not in ("bash", "console"):
            continue
        found = TITLE.search(info)
        needs = found[1] if found else ""
        for line in body.replace("\\\n", " ").splitlines():
            if kind == "console" and not line.startswith("$ "):
                continue
            text = line.removeprefix("$ ").strip()
            if not text or text.startswith("#"):
                continue
            code = EXIT.search(text)
            plain = shlex.join(shlex.split(text, comments=True))
            yield Command(name, re.sub(r"\s+", " ", plain), needs, int(code[1]) if code else 0)


def tiny(words: Sequence[str]) -> list[str]:
    """The same command with sizes that take a second."""
    if words[:1] != ["train"]:
        return list(words)
    shrunk = [_smaller(word) for word in words]
    given = {word.partition("=")[0] for word in shrunk}
    more = {key: value for key, value in ALWAYS.items() if key not in given}
    if not any(word.startswith(("model=", "experiment=part_b", "sweep=part_b", "sweep=head")) for word in words):
        more |= {} if any(key.startswith("model.filters") for key in given) else {"model.filters": "4"}
    if {"--multirun", "-m"} & set(words) and "hydra.sweeper.n_trials" not in given:
        more["hydra.sweeper.n_trials"] = "2"
    if "--cfg" in words:
        more = {}
    return [*shrunk, *(f"{key}={value}" for key, value in more.items())]


def _smaller(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}={min(int(value), MOST[key])}" if key in MOST and value.isdigit() else word


def every_command() -> list[Command]:
    return [command for page in pages() for command in commands_of(page)]


def summary(commands: Sequence[Command]) -> str:
    """How many commands are run, and how many are not, by reason."""
    waiting = Counter(command.needs for command in commands if command.needs)
    listed = ", ".join(f"{count} need {reason}" for reason, count in waiting.most_common())
    run = sum(not command.needs for command in commands)
    return f"{len(commands)} commands in {len({c.page for c in commands})} pages: {run} are run; not run: {listed}"


if __name__ == "__main__":
    print(summary(every_command()))
