"""Images and features that stay on a CUDA device for the whole training, where they fit."""

# B batch, N rows

from __future__ import annotations

import torch
from torch import Tensor

from da6401.data.cache.image_cache import CachedRows
from da6401.data.image_sets import ImageSet, Pixels

SHARE = 0.25  # of the device's free memory, for all that stays there: the network needs the rest
CHUNK = 64e6  # bytes that are read and copied at once


class ChosenRows:
    """Some rows of images or features, in one type; indexed with positions (B,) on the CPU, as Pixels are.

    Args:
        rows: (R, ...), in the memory of a device, which the answers are on, or on disk.
        places_N: the row of each position; None: they are the same.
        dtype: of the answers.
    """

    def __init__(self, rows: Pixels, places_N: Tensor | None, dtype: torch.dtype) -> None:
        self._rows = rows
        self._places_N = places_N
        self._dtype = dtype
        self._device = rows.device if isinstance(rows, Tensor) else torch.device("cpu")
        self.shape = torch.Size((rows.shape[0] if places_N is None else len(places_N), *rows.shape[1:]))

    def __getitem__(self, positions_B: Tensor) -> Tensor:
        places_B = positions_B if self._places_N is None else self._places_N[positions_B]
        return self._rows[send(places_B, self._device)].to(self._dtype)

    def select(self, positions_N: Tensor) -> ChosenRows:
        """The rows at some of these positions, in their order."""
        places_N = positions_N if self._places_N is None else self._places_N[positions_N]
        return ChosenRows(self._rows, places_N, self._dtype)

    @property
    def is_resident(self) -> bool:
        """Whether they stay on a device other than the CPU."""
        return self._device.type != "cpu"


def chosen_images(images: ImageSet, rows_N: Tensor) -> ImageSet:
    """The images at some rows, in their order; a row may come several times."""
    pixels = images.images_NCHW
    chosen: Pixels
    if isinstance(pixels, CachedRows):
        chosen = pixels.select(rows_N.numpy())
    elif isinstance(pixels, ChosenRows):
        chosen = pixels.select(rows_N)
    else:
        chosen = ChosenRows(pixels, rows_N, torch.uint8)
    names = tuple(images.names[row] for row in rows_N.tolist())
    return ImageSet(chosen, images.labels_N[rows_N], names)


def send(values: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, copied without waiting: CUDA needs page-locked memory for that."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


def room_on(device: torch.device) -> int:
    """How many bytes may stay on the device now; 0 on the CPU, whose memory the data are in anyway."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(SHARE * (free + unused))


def bring(pixels: Pixels | Tensor, dtype: torch.dtype, device: torch.device, *, room: int) -> Tensor | None:
    """All rows on the device, or None where they take more than ``room`` bytes or the device has no memory left."""
    shape = torch.Size(pixels.shape)
    if not shape[0] or shape.numel() * dtype.itemsize > room:
        return None
    try:
        rows = torch.empty(shape, dtype=dtype, device=device)
    except torch.OutOfMemoryError:  # another process took it meanwhile
        return None
    step = max(1, int(CHUNK // max(1, shape[1:].numel() * dtype.itemsize)))
    for start in range(0, len(rows), step):
        part = torch.arange(start, min(start + step, len(rows)))
        rows[start : start + step] = send(pixels[part], device)
    return rows
