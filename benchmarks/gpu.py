"""python -m benchmarks.gpu: is training as fast as the device? One page and one JSON file.

About four minutes on a large GPU. Without CUDA, or with --rehearse, everything runs once with tiny sizes on the CPU and
the page says so. A row that fails says why, and the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks import gpu_page, gpu_sweeps, loaders
from benchmarks.gpu_page import Measured
from benchmarks.gpu_trial import CUDA, DEVICE, Trial, wait
from benchmarks.pictures import make_tree
from da6401.data.cache.cache_folder import FOLDER_VARIABLE
from da6401.machine.cores import available_cores
from da6401.registry import BACKBONES

HERE = Path(__file__).parent
MODELS = {
    "Part A, 64 px": ("model=cnn", "data.image_size=64", "trainer.batch_size=256"),
    "GoogLeNet, 224 px": ("model=googlenet", "model.weights=none", "data.image_size=224", "trainer.batch_size=128"),
    "lite0, 224 px": (
        "model=efficientnet_lite0", "model.weights=none", "data.image_size=224", "trainer.batch_size=128",
    ),
}  # fmt: skip
DEFAULT_BATCH = {"Part A, 64 px, batches of 64": ("model=cnn", "data.image_size=64", "trainer.batch_size=64")}
FAST = ("trainer.precision=bf16", "trainer.deterministic=false")
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {  # what may use TF32, and keys
    "fp32": ("convolutions", ()),
    "fp32, no TF32": ("none", ()),
    "TF32": ("all", ()),
    "bf16": ("convolutions", ("trainer.precision=bf16",)),
    "fp16": ("convolutions", ("trainer.precision=fp16",)),
    "bf16, contiguous": ("convolutions", ("trainer.precision=bf16", "trainer.channels_last=false")),
    "bf16, deterministic": ("convolutions", ("trainer.precision=bf16", "trainer.deterministic=true")),
    "bf16, compiled": ("convolutions", ("trainer.precision=bf16", "trainer.compile=true")),
}
TARGET = 0.95
TRIALS_GOAL = 10.0  # a second
Turn = Callable[[float], int]


class Bench:
    """The rows so far, and the time that is left for more."""

    def __init__(self, root: Path, out: Path, *, seconds: float, minutes: float, rounds: int, tiny: bool) -> None:
        self.root, self.out, self.seconds, self.rounds, self.tiny = root, out, seconds, rounds, tiny
        self.until = time.monotonic() + 60 * minutes
        self.rows: list[Measured] = []

    def words(self, *more: str) -> list[str]:
        words = [f"device={DEVICE.type}", "data=folder", f"data.root={self.root}", "trainer.epochs=1000", *more]
        if not self.tiny:
            return words
        words = [word for word in words if not word.startswith("trainer.batch_size=")]
        return [word.replace("image_size=224", "image_size=64") for word in words] + ["trainer.batch_size=8"]

    def row(self, text: str, measure: Callable[[], Measured]) -> None:
        """Add what ``measure`` gives, or why it gives nothing."""
        started = time.monotonic()
        if started > self.until:
            self.rows.append(Measured(text, why="left out: the benchmark's time was over"))
        else:
            try:
                self.rows.append(measure())
            except Exception as error:  # the row says it, and the others go on
                reason = " ".join(str(error).split())[:200]
                self.rows.append(Measured(text, why=f"{type(error).__name__}: {reason}"))
        self.tidy()
        say(f"{time.monotonic() - started:6.1f} s  {gpu_page.line(self.rows[-1])}")

    def tidy(self) -> None:
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()

    def rates(self, turns: Mapping[str, Turn], before: Mapping[str, Callable[[], None]]) -> dict[str, list[float]]:
        """Images a second of each in every round; a first round warms everything up."""
        rates: dict[str, list[float]] = {name: [] for name in turns}
        share = self.seconds / (self.rounds * len(turns))
        for number in range(self.rounds + 1):
            for name, turn in turns.items():
                before[name]()
                wait()
                started = time.perf_counter()
                images = turn(share)
                wait()
                if number:
                    rates[name].append(images / (time.perf_counter() - started))
        return rates

    # ---- rows ----

    def against(
        self, text: str, words: tuple[str, ...], pick: Callable[[Trial], Mapping[str, Turn]], bound: float | None
    ) -> None:
        """The first of a trial's turns against each of the others."""

        def measure() -> Measured:
            trial = Trial(*self.words(*words, *FAST, "augmentation=standard"), out=self.out)
            turns = pick(trial)
            rates = self.rates(turns, dict.fromkeys(turns, trial.activate))
            (_, ours), (_, theirs) = rates.items()
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            return Measured(
                text, ours, theirs, ratios, bound=bound, first_step=trial.first_step, peak_mb=trial.peak_mb or None
            )  # fmt: skip

        self.row(text, measure)

    def variants(self, model: str, words: tuple[str, ...]) -> None:
        """Precision, layout, determinism and the compiler, in turns; ratios to fp32."""
        trials: dict[str, Trial] = {}
        for name, (tf32, keys) in VARIANTS.items():
            try:
                if time.monotonic() > self.until:
                    raise TimeoutError("left out: the benchmark's time was over")
                trial = Trial(*self.words(*words, "trainer.deterministic=false", *keys, "augmentation=standard"),
                              out=self.out, tf32=tf32)  # fmt: skip
                trial.epochs(0)
                trials[name] = trial
            except Exception as error:  # the row says it, and the others go on
                reason = " ".join(str(error).split())[:200]
                self.rows.append(Measured(f"training {model}: {name} / fp32", why=reason))
                say(f"          {gpu_page.line(self.rows[-1])}")
        if "fp32" not in trials:
            return
        turns = {name: trial.epochs for name, trial in trials.items()}
        rates = self.rates(turns, {name: trial.activate for name, trial in trials.items()})
        for name, trial in trials.items():
            ratios = [a / b for a, b in zip(rates[name], rates["fp32"], strict=True)]
            self.rows.append(Measured(
                f"training {model}: {name} / fp32", rates[name], rates["fp32"], ratios, first_step=trial.first_step,
                peak_mb=trial.peak_mb or None,
            ))  # fmt: skip
            say(f"          {gpu_page.line(self.rows[-1])}")
        trials.clear()
        turns.clear()
        self.tidy()

    def frozen(self, text: str, depth: str) -> None:
        """Steps from cached features."""
        words = (
            *MODELS["GoogLeNet, 224 px"], f"model.freeze_depth={depth}", "model.feature_cache=on", "augmentation=none",
        )  # fmt: skip

        def measure() -> Measured:
            batch = "trainer.batch_size=128"
            trial = Trial(*self.words(*words, *FAST, batch), out=self.out)
            turns = {"ours": trial.epochs, "resident": trial.resident}
            rates = self.rates(turns, dict.fromkeys(turns, trial.activate))
            size = trial.cfg.trainer.batch_size
            steps = statistics.median(rates["ours"]) / size
            ratios = [a / b for a, b in zip(rates["ours"], rates["resident"], strict=True)]
            note = f"{steps:.0f} steps/s of {size}"
            return Measured(text, rates["ours"], rates["resident"], ratios, note=note)

        self.row(text, measure)

    def heads(self, *, images: int, slots: int, trials: int, goal: float | None) -> None:
        """A head-only sweep in several slots on the one device, against the same in one slot."""

        def measure() -> Measured:
            folder = self.out / "heads"
            folder.mkdir()
            together, alone = gpu_sweeps.compared(
                folder, images=images, device=DEVICE.type, slots=slots, trials=trials
            )  # fmt: skip
            met = (
                ""
                if goal is None
                else f"; at least {goal:g} a second: {'ok' if together.rate >= goal else '**missed**'}"
            )
            note = (
                f"{together.rate:.2f} against {alone.rate:.2f} whole trials a second of 20 epochs, the same weights to "
                f"the bit{met}"
            )
            ratio = together.rate / alone.rate
            count = images * 20
            return Measured(
                f"heads of GoogLeNet on cached features of {images:,} images, {slots} slots / one slot",
                [count * together.rate], [count * alone.rate], [ratio], note=note,
            )  # fmt: skip

        self.row(f"heads of GoogLeNet in {slots} slots", measure)


def main() -> None:
    given = arguments()
    tiny = given.rehearse or not CUDA
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # `timeout` still leaves the rows so far
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(available_cores())
    folder = Path(tempfile.mkdtemp(prefix="da6401-bench-"))
    os.environ[FOLDER_VARIABLE] = str(folder / "cache")
    try:
        distinct, copies, validation = (24, 1, 10) if tiny else (256, 16, 64)
        say("drawing pictures")
        root = make_tree(folder / "pictures", train=distinct, validation=validation)
        for path in sorted((root / "train").rglob("*.jpg")):
            for copy in range(1, copies):
                shutil.copyfile(path, path.with_stem(f"{path.stem}-{copy}"))
        seconds, rounds = (0.0, 1) if tiny else (given.seconds, given.rounds)
        bench = Bench(root, folder, seconds=seconds, minutes=given.minutes, rounds=rounds, tiny=tiny)
        measure_all(bench)
    finally:
        with contextlib.suppress(NameError):
            count = distinct * copies
            gpu_page.write(
                bench.rows, images=count, rounds=rounds, tiny=tiny, why=why_tiny(given.rehearse),
                page=given.page, record=given.json,
            )  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)


def measure_all(bench: Bench) -> None:
    """The rows with a bound first: they are there whatever happens to the others."""
    goal = None if bench.tiny else TARGET  # tiny sizes show only that everything runs
    for model, words in (MODELS | DEFAULT_BATCH).items():
        bench.against(f"training {model}, bf16, standard augmentation / one resident batch", words,
                      lambda trial: {"ours": trial.epochs, "resident": trial.resident}, goal)  # fmt: skip
    for model, words in MODELS.items():
        bench.against(f"evaluation {model}, bf16 / one resident batch", words, lambda trial: {
            "ours": trial.evaluations, "resident": trial.resident_evaluations}, goal)  # fmt: skip
    most = str(len(BACKBONES["googlenet"].stages) - 2)
    bench.frozen("GoogLeNet, head alone from cached features / one resident batch", "${stages:googlenet}")
    bench.frozen("GoogLeNet, the last 2 stages train, from cached features / one resident batch", most)
    if bench.tiny:
        bench.heads(images=80, slots=2, trials=4, goal=None)
    else:
        slots = max(2, min(16, available_cores()))
        bench.heads(images=4000, slots=slots, trials=6 * slots, goal=TRIALS_GOAL if CUDA else None)
    for peer, make in (("timm's create_loader", loaders.timm_batches),
                       ("torchvision v2 + DataLoader", loaders.torchvision_v2_batches)):  # fmt: skip
        for model, words in MODELS.items():

            def pick(trial: Trial, make: Callable[..., object] = make) -> Mapping[str, Turn]:
                size, workers = trial.cfg.data.image_size, 0 if bench.tiny else available_cores()
                loader = make(bench.root / "train", size, batch_size=trial.cfg.trainer.batch_size, num_workers=workers,
                              pin_memory=CUDA)  # fmt: skip
                return {"ours": trial.epochs, "peer": trial.fed(loader)}

            bench.against(f"training {model}, bf16 / by {peer}", words, pick, None)
    for model in ("Part A, 64 px", "GoogLeNet, 224 px"):
        bench.variants(model, MODELS[model])


def why_tiny(rehearse: bool) -> str:
    if not CUDA:
        return "no CUDA device here, so the GPU's numbers are missing: a rehearsal on the CPU with tiny sizes"
    return "a rehearsal with tiny sizes: no number means anything" if rehearse else ""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, one round")
    parser.add_argument("--seconds", type=float, default=3.0, help="of measuring, a row (an epoch is never cut)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8.0, help="no row begins after so long")
    parser.add_argument("--page", type=Path, default=HERE / "gpu.md")
    parser.add_argument("--json", type=Path, default=HERE.parent / "outputs" / "gpu.json")
    return parser.parse_args()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
