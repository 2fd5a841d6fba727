"""Reads a command's verbs and flags with argparse; a mistake is a UserError that names what was probably meant."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from da6401.config.hydra_internals import flag_parser
from da6401.errors import UserError, did_you_mean, nearest_name

CHOICE = re.compile(r"argument (?P<what>.*): invalid choice: (?P<word>.*) \(choose from (?P<known>.*)\)", re.DOTALL)
TRAIN = "train"
PLUGIN_FLAGS = ("--plugin", "--plugin-changed")  # of `train`, besides Hydra's


class CommandParser(argparse.ArgumentParser):
    """Its mistakes are UserErrors that say what was probably meant; so are those of the verbs' parsers below it."""

    given: Sequence[str] = ()  # the words to parse

    def __init__(self, *given: Any, **named: Any) -> None:
        self.options: list[str] = []  # such as --out
        self.arguments: list[argparse.Action] = []
        self._verbs: Mapping[str, Any] = {}
        self._inner = False  # within argparse's own second call
        super().__init__(*given, **named)

    def add_argument(self, *names: str, **named: Any) -> argparse.Action:
        """As in argparse; it is also recorded, since argparse has no public list of them."""
        action = super().add_argument(*names, **named)
        self.arguments.append(action)
        self.options += action.option_strings
        return action

    def add_subparsers(self, **named: Any) -> Any:
        """As in argparse; the verbs are also recorded."""
        action = super().add_subparsers(**named)
        self._verbs = action.choices
        return action

    @property
    def verbs(self) -> list[str]:
        """The names of the verbs."""
        return list(self._verbs)

    @property
    def verb_parsers(self) -> Mapping[str, CommandParser]:
        """The parsers of the verbs."""
        return self._verbs

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As in argparse, but options and other words come in any order, and the verb's parser refuses unknown ones."""
        parse = super().parse_known_args
        if self._inner:
            return parse(args, namespace)
        self.given, self._inner = list(args or ()), not self._verbs
        try:
            found, unknown = (super().parse_known_intermixed_args if self._inner else parse)(args, namespace)
        finally:
            self._inner = False
        if unknown:
            self.refuse(unknown)
        return found, unknown

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Raises UserError for words that this parser does not take."""
        raise UserError(f"{self._verb()}{'; '.join(_with_hints(unknown, self.options))}\n{self.see()}")

    def error(self, message: str) -> NoReturn:
        """Raises UserError with argparse's message and the nearest valid word."""
        match = CHOICE.fullmatch(message)
        if match is None:
            raise UserError(f"{self._verb()}{message}\n{self.see()}")
        what, word = match["what"], match["word"].strip("'\"")
        known = [name.strip("'\" ") for name in match["known"].split(",")]
        is_verb = what == "VERB"
        nearest = nearest_name(word, known)
        if is_verb and TRAIN in known and "=" in word:
            nearest = shlex.join([self.prog, TRAIN, *self.given])
        kind = "verb" if is_verb else f"value of {what}" if what.startswith("-") else what
        hint = f"; did you mean {nearest}?" if nearest else ""
        raise UserError(f"{self._verb()}{word}: no such {kind}: {', '.join(known)}{hint}")

    def see(self) -> str:
        """The line that says which words are valid, or where they are listed."""
        return self.format_usage().strip()

    def _verb(self) -> str:
        verb = self.prog.partition(" ")[2]
        return f"{verb}: " if verb else ""


class _HydraParser(CommandParser):
    def see(self) -> str:
        return "da6401 train --hydra-help lists the flags"


def parse_flags(words: Sequence[str]) -> argparse.Namespace:
    """The words after `da6401 train`, as Hydra's own parser reads them.

    Raises:
        UserError: a flag that Hydra does not have.
    """
    of_hydra, flags = flag_parser()
    parser = _HydraParser(prog="da6401 train", parents=[of_hydra], add_help=False)
    parser.options = [*flags, *PLUGIN_FLAGS]
    short = [word for word in words if re.match("-[^-]", word) and f"-{word}" in flags]  # -multirun, not -m -u -l ...
    if short:
        parser.refuse(short)
    return parser.parse_args(words)


def take_plugins(words: Sequence[str]) -> tuple[list[str], list[str], bool]:
    """The words of `train` and `tune` without those on plugins; the plugins' files; whether a changed one may be used.

    Raises:
        UserError: --plugin without a file.
    """
    rest, files, changed = [], [], False
    each = iter(words)
    for word in each:
        if word == "--plugin-changed":
            changed = True
        elif word == "--plugin" or word.startswith("--plugin="):
            file = word.partition("=")[2] if "=" in word else next(each, "")
            if not file or file.startswith("-"):
                raise UserError("--plugin: needs a file: --plugin FILE")
            files.append(file)
        else:
            rest.append(word)
    return rest, files, changed


def _with_hints(unknown: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    for word in unknown:
        if word.startswith("-"):
            yield f"{word}: no such option{did_you_mean(word.partition('=')[0], options)}"
        else:
            yield f"{word}: is one word too many"
