"""model.onnx and model.pt2: the network as ONNX, and as a program of torch.export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from da6401.commands.exporting.deployed import Answer, Deployed
from da6401.machine.cores import available_cores
from da6401.redact import json_text
from da6401.runs.atomic_files import write_atomic

ONNX, PT2, ABOUT = "model.onnx", "model.pt2", "model.json"
INPUT, OUTPUTS = "images", ("logits", "probabilities")


def write_onnx_and_pt2(deployed: Deployed, about: dict[str, Any], folder: Path, *, image_size: int) -> None:
    """Write both, with ``about`` in them."""
    program = _traced(deployed, image_size)
    write_atomic(folder / PT2, lambda file: torch.export.save(program, file, extra_files={ABOUT: json_text(about)}))
    content = _onnx(program, about)
    write_atomic(folder / ONNX, lambda file: file.write(content))


def onnx_answer(path: Path, threads: int) -> Answer:
    """What an ONNX file answers.

    Args:
        threads: of onnxruntime; 0 takes all cores that this process may use.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads or available_cores()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def answer(images_BCHW: Tensor) -> Sequence[Tensor]:
        return [torch.from_numpy(np.asarray(each)) for each in session.run(OUTPUTS, {INPUT: images_BCHW.numpy()})]

    return answer


def pt2_answer(path: Path) -> Answer:
    """What a file of torch.export answers."""
    answer: Answer = torch.export.load(path).module()
    return answer


def _traced(deployed: Deployed, image_size: int) -> ExportedProgram:
    example_BCHW = torch.zeros(2, 3, image_size, image_size)
    # strict: without it, Python's len() of a tensor (in ViT) would fix the batch at this example's.
    with torch.no_grad():
        program = torch.export.export(deployed, (example_BCHW,), dynamic_shapes=_dynamic_batch(), strict=True)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine
    return program


def _dynamic_batch() -> tuple[dict[int, Dim]]:
    return ({0: Dim("batch")},)


def _onnx(program: ExportedProgram, about: dict[str, Any]) -> bytes:
    made = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=OUTPUTS, dynamic_shapes=_dynamic_batch(), verbose=False
    )
    assert made is not None, "dynamo=True returns the program"
    for key, value in about.items():
        made.model.metadata_props[key] = value if isinstance(value, str) else json_text(value)
    for node in made.model.graph:
        node.metadata_props.clear()  # how torch came to this node
    content: bytes = made.model_proto.SerializeToString()
    return content
