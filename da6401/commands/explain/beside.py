"""`da6401 predict --explain`: beside each picture a picture of what speaks for the class that it is taken for."""

# C channels, H height, W width, K classes, S side in px

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import nn

from da6401.commands.explain import drawing
from da6401.commands.explain.attribution import grad_cam, input_gradients, last_maps, patch_sums
from da6401.commands.explain.views import LEAST
from da6401.models.stages import StagedModel
from da6401.runs.atomic_files import explain_write_errors
from da6401.training.trained_model import load_network


class Explainer:
    """The model of a run; of several networks the first one."""

    def __init__(self, model: StagedModel, class_names: Sequence[str]) -> None:
        self.model, self.class_names = model, class_names
        model.freeze(0)  # for the gradients to reach the image
        model.requires_grad_(False)

    @classmethod
    def load(cls, folder: Path) -> Explainer:
        """That of a run folder. Raises RunError where it holds no run, or a damaged one."""
        model, _, class_names = load_network(folder)
        return cls(model, class_names)

    def write(self, path: Path, pixels_CSS: npt.NDArray[np.uint8], probabilities_K: npt.NDArray[np.float32]) -> None:
        """Write a PNG file: the picture as the model gets it, and its evidence for the predicted class.

        Grad-CAM; for a transformer, which has no last convolution, the gradient times the input, summed by patch.

        Raises:
            WriteError: it cannot be written.
        """
        label = int(probabilities_K.argmax())
        heat_HWC, words = self._heat(torch.from_numpy(pixels_CSS)[None].float().div_(255), label)
        with drawing.own_style():
            figure = Figure(figsize=(6.4, 3.7))
            plain, hot = figure.subplots(
                1, 2, gridspec_kw={"left": 0.02, "right": 0.98, "top": 0.88, "bottom": 0.06, "wspace": 0.04}
            )
            picture_HWC = pixels_CSS.transpose(1, 2, 0)
            drawing.show(plain, picture_HWC)
            drawing.show(hot, drawing.grey(picture_HWC))
            hot.imshow(heat_HWC, interpolation="nearest")
            for axes in (plain, hot):
                axes.axis("off")
            name = drawing.label(self.class_names[label])
            plain.set_title(f"{name}, {float(probabilities_K[label]):.4f}", fontsize=10)
            hot.set_title(words, fontsize=10)
            with explain_write_errors(path):
                drawing.save(figure, path)

    def _heat(self, image_1CHW: torch.Tensor, label: int) -> tuple[npt.NDArray[np.floating], str]:
        """The evidence as RGBA (S, S, 4), and its name."""
        classes_B = torch.tensor([label])
        layer = last_maps(self.model, image_1CHW, least=LEAST, before_ceiling=False)
        if layer is not None:
            heat_BHW = grad_cam(self.model, layer.module, image_1CHW, classes_B)
            words = "evidence for it (Grad-CAM)" if heat_BHW.any() else "no evidence (Grad-CAM)"
            return drawing.heat_colours(heat_BHW.numpy(), alpha=0.6)[0], words
        gradients = input_gradients(self.model, self.model, image_1CHW, classes_B[:, None], guided=False)
        patch = next(m for m in self.model.stages.modules() if isinstance(m, nn.Conv2d)).kernel_size[0]
        heat_BHW = patch_sums((gradients * (image_1CHW - self.model.mean)).sum(1), patch)
        return drawing.signed_colours(heat_BHW.numpy(), alpha=0.6, full=1)[0], "for it red, against it blue"
