"""Make the golden folders again, by the commands of ``commands.py`` and the code of the commit that is named there.

    python -m tests.golden.make        # from a checkout with its history, installed with the `offline` extra

It clones this repository to /tmp/da6401-golden/code at that commit and runs `da6401 train COMMAND` in
/tmp/da6401-golden, so that no path in the folders says anything about a machine. Nothing is changed by hand afterwards:
what the folders hold is what that version wrote, but for the backbone's weights in Part B's checkpoints (backbone.py)
and the picture curve.png.
Beside the folders it writes ``answers.json``: what that version said of them, and how the stopped ones ended there.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.golden.backbone import strip
from tests.golden.commands import ASKED, COMMIT, EVALUATED, PICTURES, RUNS, STOPPED, STOPPED_TRIAL, SWEEPS
from tests.golden.machine import facts

HERE = Path(__file__).resolve().parent
PLACE = Path("/tmp/da6401-golden")
CODE = PLACE / "code"
LARGEST = 1_500_000  # bytes of all golden files
COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
# The receipt is to say nothing of a kernel: which one it was, no later version compares.
PROGRAM = (
    "import platform, sys; platform.platform = lambda: f'{platform.system()}-{platform.machine()}'; "
    "from da6401.cli import main; sys.exit(main())"
)


def main() -> None:
    """Make all of it, and refuse what is too large or names this machine."""
    if PLACE.exists():
        raise SystemExit(f"{PLACE} exists: remove it first")
    _git("clone", "--quiet", "--shared", "--no-checkout", str(HERE.parents[1]), str(CODE))
    _git("-C", str(CODE), "checkout", "--quiet", "--detach", COMMIT)
    make_pictures(PLACE / "images")

    answers: dict[str, Any] = {"commit": COMMIT, "made_on": facts(), "evaluate": {}, "predict": {}, "whole": {}}
    for name, words in RUNS.items():
        folder = Path("outputs/runs", name)
        command = ["train", *words, f"hydra.run.dir={folder}"]
        if name in STOPPED:
            da6401("train", *words, f"hydra.run.dir=whole/{name}")
            answers["whole"][name] = told(PLACE / "whole" / name)
            stop_in(command, folder, STOPPED[name])
        else:
            da6401(*command)
    for name, words in SWEEPS.items():
        folder = Path("outputs/sweeps", name)
        command = ["train", "--multirun", *words, f"study={name}"]
        if name in STOPPED:
            stop_in(command, folder / f"trial-{STOPPED_TRIAL}", STOPPED[name])
            keep(folder)
            da6401(*command)  # to its total, for the answers alone
            answers["whole"][name] = sweep_told(PLACE / folder)
        else:
            da6401(*command)
            answers["whole"][name] = sweep_told(PLACE / folder)
            if "PRUNED" not in answers["whole"][name]["states"]:
                raise SystemExit(f"{name}: no trial was pruned; choose another seed")
            keep(folder)

    for name in RUNS:
        folder = Path("outputs/runs", name)
        if name not in EVALUATED:
            keep(folder)
        if name in ASKED:
            lines = da6401("predict", str(folder), *PICTURES, "--json").splitlines()
            answers["predict"][name] = [json.loads(line) for line in lines]
            da6401("evaluate", str(folder))
            result = json.loads((PLACE / folder / "result.json").read_text())
            answers["evaluate"][name] = {key: result[key] for key in ("test_accuracy", "test_loss")}
        if name in EVALUATED:
            keep(folder)
    for path in (HERE / "part_b_lite0_head").glob("checkpoints/*.pt"):
        strip(path)
    shutil.rmtree(HERE / "images", ignore_errors=True)
    shutil.copytree(PLACE / "images", HERE / "images")
    (HERE / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    check()


def make_pictures(root: Path) -> None:
    """Noisy pictures of three colours, root/{train,val,test}/<colour>/*.png, and one that is damaged."""
    random = np.random.default_rng(0)
    for split, count in {"train": 5, "val": 3, "test": 3}.items():
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.array(colour) + random.normal(0, 60, (8, 8, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    whole = (root / "train" / "red" / "0.png").read_bytes()
    (root / "train" / "red" / "damaged.png").write_bytes(whole[: len(whole) // 2])


def da6401(*words: str) -> str:
    """The command of the golden commit in PLACE, to its end; what it printed."""
    print("da6401", *words, flush=True)
    done = subprocess.run(_command(words), cwd=PLACE, env=_environment(), text=True, stdout=subprocess.PIPE, check=True)
    return done.stdout


def stop_in(words: list[str], run: Path, how: str) -> None:
    """Send a signal to the command when its run in this folder is in the middle of its epochs."""
    print("da6401", *words, f"# until {how} in {run}", flush=True)
    process = subprocess.Popen(_command(words), cwd=PLACE, env=_environment(), stdout=subprocess.DEVNULL)
    metrics = PLACE / run / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        if process.poll() is not None:
            raise SystemExit(f"{run}: ended before it was stopped")
        time.sleep(0.002)
    process.send_signal(getattr(signal, how))
    code = process.wait()
    if code not in (128 + signal.SIGTERM, -signal.SIGKILL):
        raise SystemExit(f"{run}: ended with {code}, not by {how}")
    if not torch.load(PLACE / run / "checkpoints" / "last.pt", weights_only=True)["history"]["lines"]:
        raise SystemExit(f"{run}: stopped before a checkpoint of a finished epoch was written; try again")
    if list((PLACE / run.parent).glob("*-journal")):
        raise SystemExit(f"{run.parent}: killed while the database was written; try again")


def _command(words: list[str] | tuple[str, ...]) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *words]


def _environment() -> dict[str, str]:
    here = {"PYTHONPATH": str(CODE), "DA6401_CACHE_DIR": str(PLACE / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **here}


def told(run: Path) -> dict[str, Any]:
    """How a run ended, and its epochs."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {"result": json.loads((run / "result.json").read_text()), "metrics": [json.loads(line) for line in lines]}


def sweep_told(sweep: Path) -> dict[str, Any]:
    """How a sweep ended: its summary, each trial's state and its run's end."""
    with sqlite3.connect(sweep / "study.db") as database:
        states = dict(database.execute("select number, state from trials order by number"))
    return {
        "summary": json.loads((sweep / "sweep.json").read_text()),
        "states": list(states.values()),
        "results": [json.loads((sweep / f"trial-{number}" / "result.json").read_text()) for number in states],
    }


def keep(folder: Path) -> None:
    """Copy a run or sweep folder to the golden ones, as it is now."""
    target = HERE / folder.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(PLACE / folder, target, ignore=shutil.ignore_patterns("curve.png"))  # 95 kB that nothing reads


def check() -> None:
    """Refuse golden files that are too large or name this machine, its user or their folders.

    Raises:
        SystemExit: which file says what.
    """
    names = {platform.node(), platform.release(), str(Path.home())}
    names |= {f"/home/{getpass.getuser()}", str(HERE.parents[1]), sys.prefix}
    words = {name: re.compile(rb"(?<![\w.-])" + re.escape(name).encode() + rb"(?![\w-])") for name in names}
    found = [
        f"{path}: {name}" for path, content in _golden_files() for name, word in words.items() if word.search(content)
    ]
    total = sum(len(content) for _, content in _golden_files())
    print(f"{total:,} bytes")
    if found or total > LARGEST:
        raise SystemExit("\n".join([*found, f"{total:,} bytes of at most {LARGEST:,}"]))


def _golden_files() -> Iterator[tuple[Path, bytes]]:
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
            yield path, path.read_bytes()


def _git(*words: str) -> None:
    subprocess.run(["git", *words], check=True)


if __name__ == "__main__":
    main()
