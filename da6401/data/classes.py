"""What is wrong with the classes of a data set: their names, their counts, and how they differ between splits."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from da6401.data.tree import SplitFiles
from da6401.errors import DataError
from da6401.redact import listed, one_line


def class_problems(
    class_names: Sequence[str], split: SplitFiles, *, owner: str, owners_lost: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """How a split's class folders differ from the ``class_names`` of ``owner``; none where they are the same.

    Args:
        owners_lost: the owner's own lost_classes.
    """
    here, there = split.lost_classes, owners_lost
    unknown = sorted(set(split.class_names) - set(class_names) - set(there))
    missing = sorted(set(class_names) - set(split.class_names) - set(here))
    problems = [f"{split.folder}/{one_line(name)} is {here[name]}." for name in sorted(set(class_names) & set(here))]
    problems += [f"{owner}{one_line(name)} is {there[name]}." for name in sorted(set(split.class_names) & set(there))]
    if unknown:
        problems.append(f"{split.folder}/ has {_named(unknown)}, unknown to {owner}: rename or remove.")
    if missing:
        problems.append(
            f"{split.folder}/ lacks {_named(missing)} of {owner}: add the images, "
            "or an empty folder of that name if there are none."
        )
    pairs = [group for group in alike([*unknown, *missing]) if set(group) & set(unknown) and set(group) & set(missing)]
    problems += [f"{split.folder}/ and {owner}: {_spelt(group)} are one class, spelt in two ways." for group in pairs]
    return problems


def refuse_other_classes(source: str, own: Sequence[str], class_names: Sequence[str]) -> None:
    """Of a source whose classes are fixed: nothing where a model of ``class_names`` can be tested on it.

    Raises:
        DataError: the classes are not the same.
    """
    if tuple(class_names) != tuple(own):
        raise DataError(
            f"data={source} has the classes {listed(own)}; the model knows {listed(class_names)}: "
            "evaluate it on the data that it was trained on."
        )


def training_problems(
    train: Mapping[str, int], *, folder: str, held_out: bool, explained: Collection[str] = ()
) -> list[str]:
    """Why nothing can be trained on so many images of each class.

    Args:
        train: readable images of each class, 0 for a class folder without.
        folder: where they are, for messages.
        held_out: validation is a part of them.
        explained: classes whose lack of images another message explains.
    """
    if len(train) == 1:
        return [f"{folder}/ has one class alone, {one_line(*train)}: there is nothing to tell apart; add another."]
    empty = [name for name, count in train.items() if not count and name not in explained]
    problems = []
    if empty:
        problems.append(f"no readable training image in {_named(empty)}: add some, or remove the folder.")
    return problems + (single_problems(train) if held_out else [])


def single_problems(counts: Mapping[str, int]) -> list[str]:
    """Why classes with so many images cannot give some of them to validation; one sentence, or none."""
    single = sorted(name for name, count in counts.items() if count == 1)
    if not single:
        return []
    return [
        f"cannot hold out a validation part: only one image in class {listed(single)}. "
        "Every class needs at least two: add images, or remove the class."
    ]


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ only in case, Unicode's normal form or spaces."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(" ".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def alike_notes(class_names: Iterable[str]) -> list[str]:
    """A sentence on each group of classes whose names look alike."""
    return [f"Class names that look alike: {_spelt(group)}. Is it one class?" for group in alike(class_names)]


def _spelt(names: Sequence[str]) -> str:
    return " and ".join(ascii(name) for name in names)


def _named(names: Sequence[str]) -> str:
    return f"the class {listed(names)}" if len(names) == 1 else f"{len(names)} classes ({listed(names)})"
