"""receipt.json: what a run's numbers depend on besides its configuration."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from da6401.models.counts import count_stages
from da6401.plugins.needed import plugin_files, recorded
from da6401.redact import redacted
from da6401.runs.run_folder import PLUGIN_FILES
from da6401.training.balance import imbalance_of
from da6401.training.setup import TrainingSetup

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "hydra-core", "omegaconf", "optuna", "wandb", "scikit-learn")
CHECKOUT = Path(__file__).resolve().parents[2]  # where this code lies


def receipt(setup: TrainingSetup) -> dict[str, Any]:
    """What the run's numbers depend on, besides its config."""
    device, data = setup.device, setup.data
    return {
        "command": redacted(f"{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}"),
        "seed": setup.cfg.seed,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "data_fingerprint": data.fingerprint,
        "imbalance": vars(imbalance_of(data.train.labels_N, data.class_names)),
        "class_names": list(data.class_names),
        "plugins": recorded(),
        PLUGIN_FILES: plugin_files(),
        **program(),
        "skipped": [vars(bad) for bad in data.skipped],
        "notes": data.notes,
        "stages": [vars(stage) for stage in count_stages(setup.counts.layers)],
    }


@functools.cache
def program() -> dict[str, Any]:
    """The versions of code and packages when this process first asked: those that it has loaded.

    What is committed or installed while a sweep runs is not what its later trials ran.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch_build": torch.__version__,  # with the CUDA version behind it, which pip's does not say
        "da6401": _version("da6401"),
        **_code_state(CHECKOUT),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _code_state(root: Path) -> dict[str, str | None]:
    """The git commit of this code and a hash of what differs from it; both None outside a checkout."""
    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        diff = _git(root, "diff", "HEAD", "--", "da6401", "conf")
        untracked = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", "da6401", "conf")
        new = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in untracked.split("\0") if name}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
    dirty = hashlib.sha256(f"{diff}{new}".encode()).hexdigest() if diff or new else None
    return {"git_commit": commit, "git_dirty": dirty}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout
