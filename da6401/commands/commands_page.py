"""docs/commands.md from the verbs' parsers: `python -m da6401.commands.commands_page > docs/commands.md`."""

from __future__ import annotations

import argparse
import html
import re
from collections.abc import Iterator

from da6401.commands.verbs import parser, tune_parser
from da6401.config.arguments import CommandParser

PAGE = re.compile(r"docs/(\w+)\.md")
HEAD = """# Commands

Written from the command line's own parsers by `python -m da6401.commands.commands_page`. RUN is a run's folder, a
sweep's (the model that it hands over, its confirmed winner, or its best trial), a study's name, or `latest`; what was
chosen is said in one line. Exit codes: [folders and exit codes](folders.md#exit-codes).
"""
TRAIN = """
## da6401 train

The one training entrypoint: `da6401 train [--multirun] [KEY=VALUE ...]`. Every key is in
[configuration](configuration.md); how to search is in [train and search](sweeps.md). It takes all of Hydra's flags
(`da6401 train --hydra-help`), and:

| word | what it is |
|---|---|
| `--multirun`, `-m` | a sweep: one trial for each choice of the searched keys |
| `--cfg job` | print the configuration; nothing is trained |
| `--config-dir DIR` | YAML files of yours |
| `--plugin FILE` | your own model, data, metric, ...: [plugins](plugins.md); may be given several times |
| `--plugin-changed` | its text may be another than the run's |
"""


def document() -> str:
    """The Markdown page: a section a verb, in the order of `da6401 --help`."""
    parts = [HEAD]
    for name, verb in parser().verb_parsers.items():
        if name == "train":
            parts.append(TRAIN)
        elif name == "tune":
            parts.append(_section(tune_parser()))
        else:
            parts += [_section(each) for each in verb.verb_parsers.values()] if verb.verbs else [_section(verb)]
    return "".join(parts)


def _section(verb: CommandParser) -> str:
    arguments = [each for each in verb.arguments if each.dest != "help"]
    positional = [_usage(each) for each in arguments if not each.option_strings]
    said = PAGE.sub(r"[\1](\1.md)", verb.description or verb.format_usage())
    lines = [f"\n## {verb.prog}\n", f"`{' '.join([verb.prog, *positional])}`: {said}\n"]
    if arguments:
        lines += ["| word | what it is |", "|---|---|", *(_row(each) for each in arguments), ""]
    return "\n".join(lines)


def _usage(argument: argparse.Action) -> str:
    name = str(argument.metavar or argument.dest)
    return {"*": f"[{name} ...]", "+": f"{name} [{name} ...]", "?": f"[{name}]"}.get(str(argument.nargs), name)


def _row(argument: argparse.Action) -> str:
    words = ", ".join(_words(argument)).replace("|", r"\|")
    return f"| {words} | {html.escape(argument.help or '', quote=False)} |"


def _words(argument: argparse.Action) -> Iterator[str]:
    choices = "{" + ",".join(map(str, argument.choices)) + "}" if argument.choices else None
    value = "" if argument.nargs == 0 else f" {choices or argument.metavar or argument.dest.upper()}"
    if not argument.option_strings:
        yield f"`{choices or argument.metavar or argument.dest}`"
    for option in argument.option_strings:
        yield f"`{option}{value}`"


if __name__ == "__main__":
    print(document(), end="")
