"""A run's best model as a function from pictures to probabilities: for `predict`, notebooks and `serve`."""

# B batch, K classes, S side in px

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from da6401.config.schema import RunConfig
from da6401.data.images import BadImageError, quiet_pillow, read_image, read_picture
from da6401.data.sources import resize_of
from da6401.models.ensemble import Ensemble
from da6401.models.stages import StagedModel
from da6401.plugins.needed import plugins_of
from da6401.training.device import prepare
from da6401.training.trained_model import load_model

Pixels = npt.NDArray[np.uint8]
Picture = Path | bytes | Image.Image | Pixels  # a file, its content, a picture, or (H, W), (H, W, 3) or (H, W, 4)


class Predictor:
    """The best model of a run folder on the CPU, in float32; it sets torch's global state as the run's config says."""

    def __init__(self, model: StagedModel | Ensemble, cfg: RunConfig, class_names: Sequence[str]) -> None:
        self.model, self.cfg, self.class_names = model, cfg, tuple(class_names)
        self.size, self.resize = cfg.data.image_size, resize_of(cfg.data)
        prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)

    @classmethod
    def load(cls, folder: Path, *, tta: bool = False, calibrated: bool = False) -> Predictor:
        """That of a run folder.

        Args:
            tta: the mean over each picture and its mirror image.
            calibrated: at the temperature that was fitted on validation.

        Raises:
            RunError: it holds no run, or a damaged one.
        """
        with plugins_of(folder):
            return cls(*load_model(folder, flips=tta, calibrated=calibrated))

    def read(self, picture: Picture) -> Pixels:
        """A picture as the model takes it: uint8 RGB (3, S, S).

        Raises:
            BadImageError: it cannot be read.
        """
        with quiet_pillow():
            if isinstance(picture, np.ndarray):
                picture = _from_array(picture)
            if isinstance(picture, Image.Image):
                return read_picture(picture, size=self.size, resize=self.resize)
            return read_image(picture, size=self.size, resize=self.resize)

    @torch.inference_mode()
    def probabilities(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """(B, K): the probability of each class, of pictures as ``read`` gives them.

        The last bits of an answer depend on how many pictures are asked for at once: `da6401 predict` asks for one.
        """
        images_BCHW = torch.from_numpy(np.stack(pixels)).float().div_(255)
        probabilities_BK: npt.NDArray[np.float32] = self.model(images_BCHW).softmax(1).numpy()
        return probabilities_BK

    def answer(self, probabilities_K: npt.NDArray[np.float32], *, top: int | None = None) -> Answer:
        """What is said of one picture; with ``top`` of its most probable classes alone, best first."""
        each = dict(zip(self.class_names, map(float, probabilities_K), strict=True))
        best = self.class_names[int(probabilities_K.argmax())]
        if top is not None:
            each = dict(sorted(each.items(), key=lambda pair: -pair[1])[:top])
        return {"class": best, "probability": each[best], "probabilities": each}


Answer = dict[str, str | float | dict[str, float]]  # class, probability (0..1), probabilities by class


def _from_array(array: Pixels) -> Image.Image:
    shape = array.shape[:-1] if array.ndim == 3 and array.shape[-1] == 1 else array.shape
    if array.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,), (4,)) or 0 in shape:
        raise BadImageError(
            f"an array of {array.dtype} and shape {array.shape}; a picture is uint8 (0..255) of shape (H, W), "
            "(H, W, 3) or (H, W, 4)"
        )
    return Image.fromarray(np.ascontiguousarray(array.reshape(shape)))
