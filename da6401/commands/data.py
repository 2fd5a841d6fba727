"""The command line's `data` verb: fetch, check, info, cache. Each imports what it needs when it runs, never torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from da6401.config.schema import FolderConfig, ImageFiles
from da6401.config.splits import ValRole
from da6401.data.tree import IMAGE_PATH
from da6401.errors import ConfigError

NEAR = 40  # of 255 bits; how it was chosen: docs/data.md


def add_verbs(data: argparse.ArgumentParser) -> None:
    """Add the verbs of `data`; the namespace's ``handler`` takes the namespace and returns the exit code."""
    verbs = data.add_subparsers(title="verbs", required=True, metavar="VERB")

    fetch = verbs.add_parser(
        "fetch",
        help="download a data set",
        description="Downloads iNaturalist-12K (3.8 GB; the photographs are mostly CC BY-NC) and unpacks it. A "
        "download that was cut off is resumed. A zip that you put into DIR yourself is used as it is.",
    )
    fetch.add_argument("name", choices=["inaturalist12k"], help="the data set")
    fetch.add_argument(
        "--size", choices=["12K", "1K", "100"], default="12K", help="all, or a small sample (default: 12K)"
    )
    fetch.add_argument("--to", metavar="DIR", type=Path, default=Path("data"), help="where to put it (default: data)")
    fetch.add_argument("--url-base", metavar="URL", help="another server that has nature_<size>.zip")
    fetch.set_defaults(handler=_fetch)

    check = verbs.add_parser(
        "check",
        help="name every bad or duplicate file, and images in two splits",
        description="Reads every file of every split. Exit code 0: clean (duplicates within a split are a warning); "
        "2: images in two splits, or whatever `train` or `evaluate` would refuse.",
    )
    check.add_argument(
        "--near", action="store_true",
        help="look for near-duplicates in two splits too: the same picture resized, recompressed, brighter, ...",
    )  # fmt: skip
    check.add_argument(
        "--distance", type=int, metavar="BITS", default=NEAR,
        help=f"with --near: alike are images whose hashes differ in at most so many of 255 bits (default: {NEAR})",
    )  # fmt: skip
    check.add_argument(
        "--write", metavar="FILE", type=Path,
        help="with --near: write the images to leave out, for data.exclude=FILE; test keeps all of its own",
    )  # fmt: skip
    check.set_defaults(handler=_check)

    info = verbs.add_parser(
        "info",
        help="splits, classes, sizes, and what would be used as train, validation and test",
        description="Reads the files' headers only; `check` looks deeper.",
    )
    info.set_defaults(handler=_info)
    for verb in (check, info):
        verb.add_argument(
            "root", metavar="ROOT", type=Path, help=f"the data set's folder: data.root ({IMAGE_PATH}, ...)"
        )
        verb.add_argument(
            "overrides", metavar="KEY=VALUE", nargs="*",
            help="how a training is told to read it: data=table data.table.label=fine data.group_by=patient",
        )  # fmt: skip
        text = "data.val_role of the training (default: auto)"
        verb.add_argument("--val-role", choices=get_args(ValRole), default="auto", help=text)

    cache = verbs.add_parser(
        "cache",
        help="list or clear what is kept on the disk for the next runs",
        description="Lists decoded images and whatever else is kept for the next runs. Nothing in it is unique: what "
        "is cleared is made again when it is needed. DA6401_CACHE_DIR names another folder for it.",
    )
    cache.add_argument(
        "--clear", metavar="KEY|all", help="remove the entry whose key begins so, or all; not those in use"
    )
    cache.set_defaults(handler=_cache)


def _fetch(args: argparse.Namespace) -> int:
    import shlex

    from da6401.data.fetch.inaturalist import URL_BASE, fetch_inaturalist
    from da6401.data.layout import split_folders
    from da6401.data.tree import list_split
    from da6401.redact import one_line

    fetched = fetch_inaturalist(size=args.size, to=args.to, url_base=args.url_base or URL_BASE)
    print(f"{'Already there' if fetched.already_there else 'Fetched'}: {fetched.root}")
    for _, folder in split_folders(fetched.root):
        split = list_split(fetched.root.resolve(), folder)
        print(f"  {folder}: {len(split.files):,} files, {len(split.class_names)} classes")
        for name, count in split.counts().items():
            print(f"    {one_line(name)}: {count:,}")
    if fetched.archive is not None:
        print(f"The zip is no longer needed: {fetched.archive}")
    print(f"Train on it: da6401 train experiment=part_a data=inaturalist12k {shlex.quote(f'data.root={fetched.root}')}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from da6401.data.describe import print_check
    from da6401.data.near import BITS, EXCLUDE, write_exclude
    from da6401.data.tree_check import check_data
    from da6401.machine.terminal import table_console

    if not 0 <= args.distance <= BITS:
        raise ConfigError([f"--distance {args.distance}: must be a whole number from 0 to {BITS}"])
    if args.write is not None and not args.near:
        raise ConfigError(["--write: only --near finds images to write"])
    if args.write is not None:
        EXCLUDE.check(args.write)
    report = check_data(_config(args), near=args.distance if args.near else None)
    print_check(report, table_console())
    if args.near and not report.near:
        print(f"No near-duplicates in two splits (at most {args.distance} of {BITS} bits differ).")
    if args.write is not None:
        names = write_exclude(args.write, report.near, args.distance)
        print(f"{len(names)} images to leave out are in {args.write}: data.exclude={args.write}")
    return 0 if report.clean else 2


def _info(args: argparse.Namespace) -> int:
    from da6401.data.describe import print_info
    from da6401.data.tree_check import describe_data
    from da6401.machine.terminal import table_console

    print_info(describe_data(_config(args)), table_console())
    return 0


def _config(args: argparse.Namespace) -> ImageFiles:
    """The keys of `data` as a training with these words would have them."""
    if not args.overrides:  # Hydra's imports take a second
        return FolderConfig(root=str(args.root), val_role=args.val_role)

    from da6401.config.command_line import check_command_line
    from da6401.config.quoting import from_shell, quote

    wrong = [word for word in args.overrides if not word.startswith(("data=", "data."))]
    if wrong:
        raise ConfigError([f"{word}: `data` takes keys of data alone, such as data.group_by=patient" for word in wrong])
    source = [] if any(word.startswith("data=") for word in args.overrides) else ["data=folder"]
    role = [] if args.val_role == "auto" else [f"data.val_role={args.val_role}"]
    words = [*source, *from_shell(args.overrides), f"data.root={quote(str(args.root))}", *role]
    config = check_command_line(words, multirun=False, runs=False).config
    assert config is not None, "no search, so it is one configuration"
    if not isinstance(config.data, ImageFiles):
        raise ConfigError([f"data={config.data.source}: it has no files; name one that reads files"])
    return config.data


def _cache(args: argparse.Namespace) -> int:
    from da6401.data.cache.cache_folder import cache_folder, clear, list_entries
    from da6401.data.describe import print_cache
    from da6401.machine.terminal import table_console

    if args.clear is None:
        print_cache(cache_folder(), list_entries(), table_console())
        return 0
    removed, kept = clear(args.clear)
    for entry in removed:
        print(f"removed: {entry.key}  {entry.label}")
    for entry in kept:
        print(f"in use, kept: {entry.key}  {entry.label}")
    if not removed and not kept:
        print("nothing to clear")
    return 0
