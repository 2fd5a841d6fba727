"""What others use to bring pictures to a network, each as an epoch of normalised, augmented float batches on the CPU.

All apply the same changes: a random resized crop of 0.5 to 1 of the area, a flip, and colour jitter of 0.2.
"""

from __future__ import annotations

import importlib.util
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

BATCH, WORKERS = 64, 2
SCALE, RATIO, FLIP, JITTER = (0.5, 1.0), (1 / 1.333, 1.333), 0.5, (0.2, 0.2, 0.2)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Epoch = Callable[[], int]  # runs one epoch and says how many pictures came


def counted(batches: Any) -> Epoch:
    """An epoch of something that yields (pictures, labels), or more."""

    def epoch() -> int:
        return sum(len(batch[0]) for batch in batches)

    return epoch


def _loader(dataset: Any, *, batch_size: int = BATCH, num_workers: int = WORKERS, **more: Any) -> Any:
    return DataLoader(dataset, batch_size, num_workers=num_workers, persistent_workers=num_workers > 0, **more)


def usual(train: Path, size: int) -> Epoch:
    """The course's own way: ImageFolder with torchvision's transforms on Pillow images, a DataLoader of two workers."""
    from torchvision import datasets, transforms

    changes = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, SCALE, RATIO), transforms.RandomHorizontalFlip(FLIP),
            transforms.ColorJitter(*JITTER), transforms.ToTensor(), transforms.Normalize(MEAN, STD),
        ]
    )  # fmt: skip
    return counted(_loader(datasets.ImageFolder(str(train), changes), shuffle=True))


def torchvision_v2(train: Path, size: int) -> Epoch:
    """As torchvision_v2_batches."""
    return counted(torchvision_v2_batches(train, size))


def torchvision_v2_batches(train: Path, size: int, **more: Any) -> Any:
    """torchvision's own decoder and its v2 transforms on uint8 tensors, as its documentation recommends."""
    from torchvision import datasets
    from torchvision.io import ImageReadMode, decode_image, read_file
    from torchvision.transforms import v2

    changes = v2.Compose(
        [
            v2.RandomResizedCrop(size, SCALE, RATIO, antialias=True), v2.RandomHorizontalFlip(FLIP),
            v2.ColorJitter(*JITTER), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
        ]
    )  # fmt: skip

    def read(path: str) -> Tensor:
        pixels_CHW: Tensor = decode_image(read_file(path), ImageReadMode.RGB)
        return pixels_CHW

    return _loader(datasets.ImageFolder(str(train), changes, loader=read), shuffle=True, **more)


def timm_loader(train: Path, size: int) -> Epoch | str:
    """As timm_batches."""
    return counted(timm_batches(train, size)) if importlib.util.find_spec("timm") else "not installed"


def timm_batches(train: Path, size: int, *, batch_size: int = BATCH, num_workers: int = WORKERS, **more: Any) -> Any:
    """timm's create_loader with its own transforms."""
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader

    jitter: Any = JITTER  # timm takes a tuple, too
    dataset = create_dataset("", root=str(train), is_training=True)
    return create_loader(
        dataset, input_size=(3, size, size), batch_size=batch_size, is_training=True, use_prefetcher=False, scale=SCALE,
        ratio=RATIO, hflip=FLIP, color_jitter=jitter, interpolation="bilinear", mean=MEAN, std=STD,
        num_workers=num_workers, persistent_workers=num_workers > 0, device=torch.device("cpu"), **more,
    )  # fmt: skip


def webdataset_loader(train: Path, size: int) -> Epoch | str:
    """webdataset: two shards of the same JPEGs, Pillow's decoder, torchvision v2 transforms."""
    if not importlib.util.find_spec("webdataset"):
        return "not installed"
    import webdataset
    from torchvision.transforms import v2

    files = sorted(train.rglob("*.jpg"))
    for shard in range(WORKERS):
        with tarfile.open(train.parent / f"shard-{shard}.tar", "w") as tar:
            for number in range(shard, len(files), WORKERS):
                tar.add(files[number], f"{number:06d}.jpg")
                label = files[number].parent.name.removeprefix("class").encode()
                about = tarfile.TarInfo(f"{number:06d}.cls")
                about.size = len(label)
                tar.addfile(about, io.BytesIO(label))
    changes = v2.Compose(
        [
            v2.PILToTensor(), v2.RandomResizedCrop(size, SCALE, RATIO, antialias=True), v2.RandomHorizontalFlip(FLIP),
            v2.ColorJitter(*JITTER), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
        ]
    )  # fmt: skip
    shards = str(train.parent / f"shard-{{0..{WORKERS - 1}}}.tar")
    dataset = webdataset.WebDataset(shards, shardshuffle=False).shuffle(200).decode("pil").to_tuple("jpg", "cls")
    dataset = dataset.map_tuple(changes, lambda label: label).batched(BATCH)
    return counted(webdataset.WebLoader(dataset, batch_size=None, num_workers=WORKERS, persistent_workers=True))


def ffcv_loader(train: Path, size: int) -> Epoch | str:
    """ffcv needs OpenCV's and libjpeg-turbo's headers and a compiler; there is no wheel."""
    if not importlib.util.find_spec("ffcv"):
        return "does not install here: no wheel, and its build needs OpenCV and libjpeg-turbo headers"
    return "installed, but not measured: its own file format and its numba pipeline have no script here yet"


# ---- augmentation alone, on decoded uint8 batches ------------------------------------------------------------------


def kornia_augmenter(size: int) -> Callable[[Tensor], Tensor] | str:
    """kornia on a batch, its parameters each picture's own."""
    if not importlib.util.find_spec("kornia"):
        return "not installed"
    import kornia.augmentation as K

    changes = K.AugmentationSequential(
        K.RandomResizedCrop((size, size), SCALE, RATIO), K.RandomHorizontalFlip(FLIP), K.ColorJitter(*JITTER, p=1.0),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)), data_keys=["input"],
    )  # fmt: skip
    return lambda images: changes(images.float().div_(255))


def v2_augmenter(size: int) -> Callable[[Tensor], Tensor]:
    """torchvision v2 on each picture of the batch: on the whole batch it would draw once for all."""
    from torchvision.transforms import v2

    changes = v2.Compose(
        [
            v2.RandomResizedCrop(size, SCALE, RATIO, antialias=True), v2.RandomHorizontalFlip(FLIP),
            v2.ColorJitter(*JITTER), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
        ]
    )  # fmt: skip
    return lambda images: torch.stack([changes(image) for image in images])


def epochs_of(batches: Callable[[], Iterator[Tensor]]) -> Epoch:
    """An epoch of an iterator that is made anew each time."""
    return lambda: sum(len(images) for images in batches())
