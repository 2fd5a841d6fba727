"""`da6401 models`: what model=NAME can be, with parameters, size of the images, stages, and where weights are."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from da6401.config.own_keys import OWN
from da6401.config.schema import PretrainedConfig, RunConfig
from da6401.errors import UserError, did_you_mean
from da6401.machine.terminal import table_console
from da6401.models.build import build_model
from da6401.models.pretrained import on_meta, weights_here
from da6401.models.stages import StagedModel
from da6401.registry import BACKBONES, LIBRARIES, BackboneEntry, LibraryEntry

MOST = 60  # networks that are built for their numbers; of more the names alone are listed
HERE = {True: "here", False: "to fetch", None: "none"}
CLASSES = 10  # of a plugin's network, which is built with its head


@dataclass(frozen=True)
class _Listed:
    """A network that model=NAME or model=LIBRARY model.arch=NAME chooses."""

    name: str
    group: str  # the library; "" for our own and plugins'
    numbers: Callable[[], tuple[str, str, str, str]]  # parameters, side of the images, stages, weights


def list_models(pattern: str | None) -> int:
    """Print what fits the pattern (of names, or of library/name); our own and the libraries' sizes without one.

    Raises:
        UserError: nothing fits.
    """
    libraries: list[str] = []
    found = [_Listed(name, "", functools.partial(_of_plugin, schema)) for name, schema in OWN["model"].items()]
    found += [_Listed(name, "", functools.partial(_of_entry, BACKBONES.__getitem__, name)) for name in BACKBONES]
    for library, entry in LIBRARIES.entries.items():
        try:
            names = entry.names()
        except UserError as error:
            libraries.append(str(error))
            continue
        libraries.append(f"model={library} model.arch=NAME: {len(names):,}; da6401 models '{library}/*' lists them")
        found += list(_of_library(library, entry, names)) if pattern else []
    if pattern:
        known = [each.name for each in found]
        found = [each for each in found if _fits(each, pattern)]
        if not found:
            raise UserError(f"models {pattern}: no model has such a name{did_you_mean(pattern.strip('*'), known)}")
    print_to = table_console()
    if len(found) > MOST:
        for each in found:
            print_to.print(f"model={each.group} model.arch={each.name}" if each.group else f"model={each.name}")
        print_to.print(f"{len(found):,} models; their numbers are shown for {MOST} or fewer: give a narrower pattern")
        return 0
    print_to.print(_table(found))
    for line in libraries if not pattern else ():
        print_to.print(line)
    return 0


def _of_library(library: str, entry: LibraryEntry, names: Sequence[str]) -> Iterator[_Listed]:
    for name in names:
        yield _Listed(name, library, functools.partial(_of_entry, entry.backbone, name))


def _fits(each: _Listed, pattern: str) -> bool:
    whole = f"{each.group}/{each.name}" if each.group else each.name
    return fnmatch.fnmatchcase(whole, pattern) or fnmatch.fnmatchcase(each.name, pattern)


def _table(found: list[_Listed]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("model", "parameters", "images", "stages", "weights"):
        table.add_column(title, justify="right" if title in ("parameters", "images", "stages") else "left")
    for each in found:
        name = f"{each.group} model.arch={each.name}" if each.group else each.name
        try:
            table.add_row(name, *each.numbers())
        except Exception as error:  # of a thousand architectures some want a package that is not installed
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            table.add_row(name, "", "", "", f"cannot be built: {reason}")
    return table


def _of_entry(entry_of: Callable[[str], BackboneEntry], name: str) -> tuple[str, str, str, str]:
    entry = entry_of(name)
    network = on_meta(functools.partial(entry.make, entry.trained_at))
    parameters = sum(parameter.numel() for stage in entry.cut(network.eval()) for parameter in stage.parameters())
    stages = "1: all or head" if entry.note else str(len(entry.stages))
    return f"{parameters:,}", f"{entry.trained_at} px", stages, HERE[weights_here(entry)]


def _of_plugin(schema: type) -> tuple[str, str, str, str]:
    """With the defaults of its keys: a backbone as ours, a network or a block with its head, for the default images."""
    cfg = schema()
    if isinstance(cfg, PretrainedConfig):
        return _of_entry(lambda name: cfg.backbone, cfg.name)
    side = RunConfig().data.image_size
    model = on_meta(lambda: build_model(cfg, num_classes=CLASSES, image_size=side))
    assert isinstance(model, StagedModel), "on_meta gives what the builder makes"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{parameters:,}", f"{side} px", str(len(model.stage_names)), HERE[None]
