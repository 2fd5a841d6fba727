"""Class and probability of images, as `da6401 predict` gives them; numpy, pillow and onnxruntime are all it needs.

It lies beside model.onnx in an exported folder. The model gets the picture that it was trained on, bit for bit.
"""

# S side of the square in px; H, W height and width of a file's picture; N rows, of any shape

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image
from PIL.Image import Transpose

Pixels = npt.NDArray[np.uint8]
HERE = Path(__file__).parent
FLOAT32, INT8 = "model.onnx", "model.int8.onnx"
ORIENTATION = 0x0112  # EXIF tag; 1 and whatever is unknown mean upright
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def read(path: Path, formats: list[str], size: int, *, crop: bool) -> Pixels:
    """The picture of a file, upright 8-bit RGB of shape (S, S, 3)."""
    try:
        flat, turn = decode(path, formats, size)
    except OSError:
        flat, turn = decode(path, formats, None)  # some kinds of JPEG have no reduced scale
    pixels = np.asarray(flat if turn is None else flat.transpose(turn))
    if crop:
        height, width, side = *pixels.shape[:2], min(pixels.shape[:2])
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    across = resample(pixels.transpose(1, 0, 2), size)
    return resample(across.transpose(1, 0, 2), size)


def decode(path: Path, formats: list[str], size: int | None) -> tuple[Image.Image, Transpose | None]:
    """8-bit RGB, and the turn that puts it upright; with a size a JPEG is decoded at 1/2, 1/4 or 1/8 where enough."""
    with Image.open(path, formats=formats) as image:
        drafted = None if size is None else image.draft(None, (size, size))
        image.load()
        width, height = image.size if drafted is None else map(int, drafted[1][2:])  # without part of a last pixel
        try:
            turn = TURNS.get(int(image.getexif().get(ORIENTATION, 1)))
        except Exception:  # a damaged EXIF block says nothing about the pixels
            turn = None
        if image.format == "PNG" and "transparency" in image.info:
            with path.open("rb") as file:
                rescale_transparency(image, bits=file.read(25)[24])
        return to_rgb(image).crop((0, 0, width, height)), turn


def rescale_transparency(image: Image.Image, *, bits: int) -> None:
    """A PNG names its transparent value in its own bits, where Pillow's pixels have 8."""
    value = image.info["transparency"]
    if image.mode == "L" and isinstance(value, int) and bits < 8:
        image.info["transparency"] = (value & (2**bits - 1)) * 255 // (2**bits - 1)
    if image.mode == "RGB" and bits == 16:
        raise ValueError("16 bits with one transparent colour: convert it to 8 bits")


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: 16-bit grey is divided by 257, transparency lies on white, colour profiles are not applied."""
    if image.mode[0] == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit pixels, whose range is not known: convert it to 8 or 16 bits")
        values[values == image.info.get("transparency", -1)] = 65535
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known: convert it to 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def resample(rows: Pixels, size: int) -> Pixels:
    """N rows into ``size``: bicubic (a = -0.5), antialiased, by torch's whole-number weights of 16 bits."""
    scale = len(rows) / size
    stretch = max(scale, 1.0)
    table: list[tuple[int, int, npt.NDArray[np.float64]]] = []
    for index in range(size):
        centre = scale * (index + 0.5)
        first, end = max(int(centre - 2 * stretch + 0.5), 0), min(int(centre + 2 * stretch + 0.5), len(rows))
        x = np.abs((np.arange(first, end) - centre + 0.5) * (1 / stretch))
        far = np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0.0)
        weights = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, far)
        table.append((first, end, weights / sum(weights)))
    largest = max(weights.max() for *_, weights in table)
    bits = next((bits for bits in range(22) if int(largest * 2 ** (bits + 1) + 0.5) >= 2**15), 22)
    result = np.empty((size, *rows.shape[1:]), np.uint8)
    for index, (first, end, weights) in enumerate(table):
        whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights))
        total = np.tensordot(whole, rows[first:end].astype(np.float64), 1)  # whole numbers below 2**53: exact
        result[index] = np.floor((total + 2 ** (bits - 1)) / 2**bits).clip(0, 255)
    return result


def one_line(text: object) -> str:
    """Text that cannot steer a terminal: control characters and bytes that are not UTF-8 as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


def saved(name: str, *keys: str) -> dict[str, Any]:
    """These values of the JSON object in a file of this folder; a ValueError names a file that has them not."""
    try:
        values = json.loads((HERE / name).read_text(encoding="utf-8"))
        return {key: values[key] for key in keys}
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{HERE / name}: damaged ({error!r}); `da6401 export RUN` writes it anew") from error


def load(model: str = FLOAT32) -> tuple[dict[str, Any], onnxruntime.InferenceSession]:
    """What preprocess.json says, and the model of a file of this folder."""
    about = saved("preprocess.json", "formats", "image_size", "resize", "class_names")
    Image.init()
    about["formats"] = [name for name in about["formats"] if name in Image.OPEN]
    warnings.simplefilter("ignore")  # Pillow's, about metadata
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    return about, onnxruntime.InferenceSession(HERE / model, providers=["CPUExecutionProvider"])


def picture(path: Path, about: dict[str, Any]) -> Pixels:
    """The picture of a file as the model was trained on it, (S, S, 3)."""
    return read(path, about["formats"], about["image_size"], crop=about["resize"] == "crop")


def answer(session: onnxruntime.InferenceSession, pixels: Pixels, output: str) -> npt.NDArray[np.float32]:
    """Of one picture an output of the model, logits or probabilities: a number for each class."""
    images = pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    (values,) = session.run([output], {"images": images})[0]
    return np.asarray(values)


def main() -> int:
    """Print class and probability of each file; 2 where some could not be read, after all the others."""
    parser = argparse.ArgumentParser(description="class and probability of images", allow_abbrev=False)
    parser.add_argument("images", nargs="+", metavar="IMAGE", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--int8", action="store_true", help=f"the smaller model, {INT8}, where it is here")
    given = parser.parse_args()
    if given.int8 and not (HERE / INT8).exists():
        parser.error(f"--int8: no {INT8} is here; `da6401 export RUN --int8` writes it")
    about, session = load(INT8 if given.int8 else FLOAT32)
    refused = 0
    for path in given.images:
        try:
            pixels = picture(path, about)
        except Exception as error:  # Pillow's readers raise nearly anything on damaged content
            reason = f"{error} (read are {', '.join(about['formats'])}; convert others)"
            print(f"predict.py: {one_line(path)}: {one_line(reason)}", file=sys.stderr)
            refused += 1
            continue
        probabilities = answer(session, pixels, "probabilities")
        each = dict(zip(about["class_names"], map(float, probabilities), strict=True))
        best = about["class_names"][int(probabilities.argmax())]
        if given.json:
            said = {"image": str(path), "class": best, "probability": each[best], "probabilities": each}
            line = json.dumps(said, ensure_ascii=False)
        else:
            line = f"{one_line(path)}  {one_line(best)}  {each[best]:.4f}"
        sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")  # a name may be no UTF-8
    return 2 if refused else 0


def exit_code(program: Callable[[], int]) -> int:
    """What the program returns; 141 where nobody reads its output further, 2 and a line where it cannot go on."""
    try:
        try:
            return program()
        finally:
            print(end="", flush=True)  # now, since Python tells what fails at its own end in lines of its own
    except Exception as error:  # onnxruntime's errors have no common base; what is none of these goes on
        of_runtime = type(error).__module__.startswith("onnxruntime")
        if not (of_runtime or isinstance(error, (OSError, ValueError))):
            raise
        problem = one_line(error)
        if of_runtime:
            problem += "; `da6401 export RUN` writes the model anew"
        try:
            print(end="", flush=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python tries once more as it ends
            problem = f"the output cannot be written: {problem}"
        if isinstance(error, BrokenPipeError):  # `predict.py ... | head`
            return 141
        print(f"{Path(sys.argv[0]).name}: {problem}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(exit_code(main))
