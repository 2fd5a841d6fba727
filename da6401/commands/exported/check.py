"""Does this folder answer on this machine as it did on the one that exported it? 0 where it does, else 1 and why.

2 where it cannot compare: a file is missing or damaged.

parity.json has the answers that PyTorch gave there to the pictures beside it; of 8 bits those of onnxruntime. Another
version of Pillow may decode other pixels; another version of onnxruntime, or another processor, may compute otherwise.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np
from predict import FLOAT32, HERE, INT8, answer, exit_code, load, picture, saved  # type: ignore[import-not-found]  # it lies beside


def main() -> int:
    """Compare, and print a line on each picture and model."""
    known = saved("parity.json", "pictures", "allowed")
    models = [model for model in (FLOAT32, INT8) if (HERE / model).exists()]
    if not models:
        raise FileNotFoundError(f"{HERE}: no {FLOAT32} is here; `da6401 export RUN` writes it")
    failed = 0
    for model in models:
        about, session = load(model)
        for name, expected in known["pictures"].items():
            pixels = picture(HERE / name, about)
            same = hashlib.sha256(pixels.tobytes()).hexdigest() == expected["sha256"]
            logits = np.asarray(expected["logits"][model])
            scale = max(1.0, float(np.abs(logits).max()))
            difference = float(np.abs(answer(session, pixels, "logits") - logits).max()) / scale
            allowed = known["allowed"][model]
            good = same and difference <= allowed  # NaN is not
            failed += not good
            said = "the same pixels" if same else "OTHER PIXELS: the image library decodes or resizes otherwise"
            print(
                f"{'ok ' if good else 'BAD'} {model}  {name}  {said}, difference {difference:.1e} (allowed {allowed:g})"
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
