"""The verbs besides `train` and `tune`: their arguments, and what each calls."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from da6401 import __version__
from da6401.commands.serving.limits import Batching, Limits, Place
from da6401.config.arguments import CommandParser
from da6401.config.splits import SCORED_SPLITS, VALIDATION

TUNE = "the best model that so many minutes give: docs/tune.md"
EXPORT_FORMATS = ("onnx", "safetensors", "torchscript")
Handler = Callable[[argparse.Namespace], int]


def parser() -> CommandParser:
    """The parser of the whole command line; a parsed verb has its `handler`."""
    words = CommandParser(
        prog="da6401",
        description="Hydra-configured hyperparameter sweeps for image classification.",
        allow_abbrev=False,
    )
    words.add_argument("--version", action="version", version=f"da6401 {__version__}")
    verbs = words.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("train", help="train one configuration, or a sweep with --multirun", add_help=False)
    verbs.add_parser("tune", help=TUNE, add_help=False)

    reproduce = _run_verb(verbs, "reproduce", "run a saved config again and say what differs", _reproduce)
    reproduce.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the saved config")
    compare = _verb(verbs, "compare", "keys that differ, metrics and curves of several runs", _compare)
    compare.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="two or more: each as of evaluate")
    _add_plugins(compare, "a plugin whose metrics the runs have")
    text = "write a page, too: curves overlaid, confusion matrices' difference, images on which they disagree"
    compare.add_argument("--page", type=Path, metavar="FILE", help=text)
    _run_verb(verbs, "evaluate", "the best checkpoint on the test split, once, recorded", _evaluate)
    predict = _run_verb(verbs, "predict", "class and probability of images", _predict)
    predict.add_argument("images", nargs="+", metavar="IMAGE", type=Path, help="files, folders and patterns")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    predict.add_argument("--csv", type=Path, metavar="FILE", help="a table of the answers")
    predict.add_argument("--top", type=int, metavar="K", help="the K most probable classes of each image")
    text = "beside each picture, PICTURE.explain.png: what speaks for its class"
    predict.add_argument("--explain", action="store_true", help=text)
    _add_answers(predict)
    export = _run_verb(verbs, "export", "the best model as a folder that predicts without torch, checked", _export)
    export.add_argument("--out", type=Path, help="the folder for them; RUN/export without")
    text = "onnx (without --to), safetensors or torchscript; may be given several times"
    export.add_argument("--to", action="append", choices=EXPORT_FORMATS, help=text)
    text = "a model of 8 bits beside model.onnx, with its accuracy; needs the run's data"
    export.add_argument("--int8", action="store_true", help=text)
    _add_answers(export)
    explain = _run_verb(verbs, "explain", "pictures of what the model sees and where it errs", _explain)
    text = "whose images to show: validation, or test, which is recorded as a look at it"
    explain.add_argument("--split", choices=SCORED_SPLITS, default=VALIDATION, help=text)
    report = _verb(verbs, "report", "one self-contained HTML page of a run, a sweep, or several", _report)
    text = "runs, sweeps, names of studies, latest; or a folder of many, such as outputs: an index of them"
    report.add_argument("folders", nargs="+", metavar="DIR", type=Path, help=text)
    report.add_argument("--out", type=Path, help="the page to write; DIR/report.html without")
    report.add_argument("--storage", help="the study's storage URL, where it is not in the sweep's folder")
    text = "in the order of the assignment's questions, of a sweep or run of Part A and one of Part B"
    report.add_argument("--assignment", action="store_true", help=text)
    report.add_argument(
        "--pdf", action="store_true", help="print it, too, as a PDF beside it; needs Chromium or Chrome"
    )
    report.add_argument("--watch", action="store_true", help="serve it on this machine and refresh it, until Ctrl-C")
    report.add_argument("--port", type=int, default=0, help="for --watch; 0 takes a free one")
    _add_plugins(report, "a plugin whose metrics the runs have")

    _add_serve(_run_verb(verbs, "serve", "the best model behind HTTP: POST /predict, and a page for a browser", _serve))

    models = _verb(verbs, "models", "what model=NAME can be: parameters, images, stages, weights", _models)
    models.add_argument("pattern", nargs="?", metavar="PATTERN", help="such as '*net*' or 'timm/*'; quote it")
    _add_plugins(models, "a plugin whose models to list, too")

    text = "parameters and multiply-accumulates of a network, each layer as a formula"
    count = _verb(verbs, "count", text, _count)
    count.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of train, such as model.filters=32")
    count.add_argument("--classes", type=int, default=10, metavar="K", help="outputs of the network; 10 without")
    _add_plugins(count, "as of train")

    from da6401.commands.data import add_verbs

    add_verbs(verbs.add_parser("data", help="fetch, check or describe a data set"))
    return words


def tune_parser() -> CommandParser:
    """The words after `da6401 tune`; what is left over are keys of `train`."""
    words = CommandParser(prog="da6401 tune", description=TUNE, allow_abbrev=False)
    words.add_argument("root", metavar="ROOT", help="a folder of labelled images")
    words.add_argument("--minutes", type=float, required=True, metavar="M", help="of the whole command")
    parts = "a CNN from scratch, a pretrained backbone, both"
    words.add_argument("--part", choices=("a", "b", "both"), default="both", help=parts)
    words.add_argument("--plugin", metavar="FILE", help="as of train; may be given several times")
    words.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of train; study=NAME goes on with it")
    return words


def _verb(verbs: Any, name: str, text: str, handler: Handler) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    verb.set_defaults(handler=handler)
    return verb


def _run_verb(verbs: Any, name: str, text: str, handler: Handler) -> argparse.ArgumentParser:
    def of_run(given: argparse.Namespace) -> int:
        from da6401.commands.targets import run_named

        given.run = run_named(given.run)
        return handler(given)

    verb = _verb(verbs, name, text, of_run)
    verb.add_argument("run", metavar="RUN", type=Path, help="a run folder, a sweep, a study's name, or latest")
    _add_plugins(verb, "a plugin that the run needs")
    return verb


def _add_plugins(verb: argparse.ArgumentParser, text: str) -> None:
    verb.add_argument("--plugin", metavar="FILE", action="append", default=[], help=text)
    verb.add_argument("--plugin-changed", action="store_true", help="its text may be another than the run's")


def _add_answers(verb: argparse.ArgumentParser) -> None:
    """How the model answers, where not as in training and `evaluate`."""
    verb.add_argument("--tta", action="store_true", help="the mean over each image and its mirror image")
    verb.add_argument("--calibrated", action="store_true", help="probabilities at the temperature fitted on validation")


def _reproduce(given: argparse.Namespace) -> int:
    from da6401.commands.reproduce import reproduce_run

    return reproduce_run(given.run, given.overrides)


def _compare(given: argparse.Namespace) -> int:
    from da6401.commands.compare import compare_runs
    from da6401.commands.targets import run_named
    from da6401.runs.named_folders import folder_of

    if given.page is None:
        return compare_runs([run_named(word) for word in given.runs])

    from da6401.commands.compare_page import COMPARISON, write_comparison

    COMPARISON.check(given.page)
    code = compare_runs([run_named(word) for word in given.runs])
    write_comparison([folder_of(word) for word in given.runs], given.page)
    return code


def _evaluate(given: argparse.Namespace) -> int:
    from da6401.commands.evaluate import evaluate_run

    return evaluate_run(given.run)


def _predict(given: argparse.Namespace) -> int:
    from da6401.commands.predict import Output, predict_images

    output = Output(as_json=given.json, csv=given.csv, top=given.top, explain=given.explain)
    return predict_images(given.run, given.images, output, tta=given.tta, calibrated=given.calibrated)


def _export(given: argparse.Namespace) -> int:
    from da6401.commands.export import Wanted, export_run

    wanted = Wanted(out=given.out, formats=tuple(given.to or EXPORT_FORMATS[:1]), int8=given.int8)
    return export_run(given.run, wanted, tta=given.tta, calibrated=given.calibrated)


def _add_serve(verb: argparse.ArgumentParser) -> None:
    """The options of `serve`, whose defaults are those of serving/limits.py."""
    place, limits, batching = Place(), Limits(), Batching()
    text = f"the address to listen at; {place.host}, which other machines do not reach, without"
    verb.add_argument("--host", default=place.host, help=text)
    verb.add_argument("--port", type=int, default=place.port, help=f"{place.port} without; 0 takes a free one")
    for name, kind, default, text in (
        ("megabytes", float, limits.megabytes, "most of one request"),
        ("files", int, limits.files, "most of one request"),
        ("megapixels", float, limits.megapixels, "most of one picture"),
        ("seconds", float, limits.seconds, "for a request to arrive, and again for its answer"),
        ("batch", int, batching.batch, "pictures that the model takes at once"),
        ("wait-ms", float, batching.wait_ms, "that a picture waits for others where the model is idle"),
        ("drain", float, place.drain, "seconds after SIGTERM in which it still accepts connections"),
    ):
        verb.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{text}; {default:g} without")
    _add_answers(verb)


def _serve(given: argparse.Namespace) -> int:
    from da6401.commands.serving.serve_run import serve_run

    place = Place(host=given.host, port=given.port, drain=given.drain)
    limits = Limits(megabytes=given.megabytes, files=given.files, megapixels=given.megapixels, seconds=given.seconds)
    batching = Batching(batch=given.batch, wait_ms=given.wait_ms)
    return serve_run(given.run, place, limits, batching, tta=given.tta, calibrated=given.calibrated)


def _explain(given: argparse.Namespace) -> int:
    from da6401.commands.explain.explain_run import explain_run

    return explain_run(given.run, split=given.split)


def _count(given: argparse.Namespace) -> int:
    from da6401.commands.count import count_network

    return count_network(given.overrides, classes=given.classes)


def _models(given: argparse.Namespace) -> int:
    from da6401.commands.models import list_models

    return list_models(given.pattern)


def _report(given: argparse.Namespace) -> int:
    from da6401.report.page import report

    return report(
        given.folders, out=given.out, storage=given.storage, watch=given.watch, port=given.port,
        assignment=given.assignment, pdf=given.pdf,
    )  # fmt: skip
