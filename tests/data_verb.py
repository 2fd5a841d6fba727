"""The words after `da6401 data`, in this process."""

from __future__ import annotations

import argparse

from da6401.commands.data import add_verbs


def data_verb(*arguments: object) -> int:
    """The exit code of `da6401 data ARGUMENTS`; raises as the verb does."""
    parser = argparse.ArgumentParser()
    add_verbs(parser)
    args = parser.parse_args([*map(str, arguments)])
    code: int = args.handler(args)
    return code
