"""model.safetensors and model.torchscript: the weights alone, and the network for programs that embed libtorch."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from da6401.commands.exporting.deployed import Answer, Deployed
from da6401.commands.exporting.onnx_files import ABOUT
from da6401.errors import ModelError
from da6401.redact import json_text
from da6401.runs.atomic_files import write_atomic

SAFETENSORS, TORCHSCRIPT = "model.safetensors", "model.torchscript"


def write_safetensors(deployed: Deployed, about: dict[str, Any], folder: Path) -> None:
    """The state_dict of the network, and ``about`` as the file's metadata: texts, JSON where a value is none."""
    from safetensors.torch import save

    state = {name: each.detach().clone().contiguous() for name, each in deployed.model.state_dict().items()}
    metadata = {key: value if isinstance(value, str) else json_text(value) for key, value in about.items()}
    content = save(state, {"format": "pt", **metadata})
    write_atomic(folder / SAFETENSORS, lambda file: file.write(content))


def safetensors_answer(path: Path, deployed: Deployed) -> Answer:
    """What the network answers with the file's weights: none of its own is left."""
    from safetensors.torch import load_file

    empty = copy.deepcopy(deployed)
    with torch.no_grad():
        for each in empty.state_dict().values():
            each.zero_()
    empty.model.load_state_dict(load_file(path))
    return empty


def write_torchscript(deployed: Deployed, about: dict[str, Any], folder: Path, *, image_size: int) -> None:
    """A traced program, with ``about`` as its extra file model.json."""
    content = io.BytesIO()
    with torch.no_grad():
        example_BCHW = torch.zeros(2, 3, image_size, image_size)
        program = torch.jit.trace(deployed, example_BCHW, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(program, content, _extra_files={ABOUT: json_text(about)})
    write_atomic(folder / TORCHSCRIPT, lambda file: file.write(content.getvalue()))


def torchscript_answer(path: Path) -> Answer:
    """What the file answers.

    Raises:
        ModelError: when asked: a trace has fixed what depends on the batch's size, as len() of a tensor does.
    """
    program = torch.jit.load(path)  # type: ignore[no-untyped-call]

    def answer(images_BCHW: Tensor) -> Sequence[Tensor]:
        try:
            logits_BK, probabilities_BK = program(images_BCHW)
        except RuntimeError as error:
            raise ModelError(
                f"{TORCHSCRIPT}: this network cannot be traced for batches of any size; use ONNX"
            ) from error
        return logits_BK, probabilities_BK

    return answer
