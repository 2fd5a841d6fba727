"""The pictures of `da6401 explain`: what each shows of a model and its answers, and what its caption must admit."""

# N images of the split, M images that are explained, P images of the embedding, K classes, E features, F filters,
# C channels, H height, W width, S side

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from torch import Tensor, nn

from da6401.commands.explain import drawing
from da6401.commands.explain.attribution import (
    MapLayer,
    calls_of,
    grad_cam,
    input_gradients,
    last_maps,
    other_nonlinearities,
    patch_sums,
    strongest_neurons,
)
from da6401.commands.explain.drawing import Bar, Example, Floats
from da6401.data.image_sets import ImageSet
from da6401.models.stages import StagedModel
from da6401.runs.predictions import confusion_counts

CLASSES, IMAGES_EACH, EXPLAINED = 10, 3, 10
EMBEDDED = 600  # images: t-SNE takes some seconds for them
FILTERS = 256  # ViT's first layer has 768
FULL = 0.995  # quantile of a gradient's magnitudes that is shown in full: a few outliers would hide all others
LEAST = 4  # places to a side of Grad-CAM's map: a map of 1 x 1 or 2 x 2 says nothing of where


@dataclass(frozen=True)
class Picture:
    """One file of RUN/explain: how it is drawn, and what about.json says of it."""

    file: str
    title: str
    caption: str  # what it shows, and what it does not
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Choice:
    """Which images of a split are shown, by their positions: drawn by chance, and not for their answers."""

    classes: list[int]  # at most CLASSES, ascending
    rows: list[list[int]]  # of each of them at least IMAGES_EACH images, where it has so many
    embedded_P: npt.NDArray[np.int64]  # at most EMBEDDED, ascending

    @property
    def explained(self) -> list[int]:
        """One image of each class, then the second of each, until there are EXPLAINED."""
        longest = max(len(row) for row in self.rows)
        return [row[place] for place in range(longest) for row in self.rows if place < len(row)][:EXPLAINED]


def choose(labels_N: npt.NDArray[np.int64], *, seed: int) -> Choice:
    """The same labels and seed give the same choice; classes without an image are left out."""
    rng = np.random.default_rng(seed)
    present = np.unique(labels_N)
    classes = np.sort(rng.choice(present, min(CLASSES, len(present)), replace=False)).tolist()
    each = max(IMAGES_EACH, -(-EXPLAINED // len(classes)))
    rows = [rng.permutation(np.flatnonzero(labels_N == number))[:each].tolist() for number in classes]
    embedded_P = np.sort(rng.permutation(np.flatnonzero(np.isin(labels_N, classes)))[:EMBEDDED])
    return Choice(classes, rows, embedded_P)


@dataclass(frozen=True)
class Answers:
    """What the model says to a split, and which of its images the pictures show."""

    images: ImageSet
    class_names: Sequence[str]
    labels_N: npt.NDArray[np.int64]
    predicted_N: npt.NDArray[np.int64]
    confidence_N: Floats
    choice: Choice
    features_PE: Floats  # of the images of choice.embedded_P; E = 0 where no linear layer gives the logits

    @cached_property
    def inputs(self) -> Tensor:
        """The images that are explained, 0..1: (M, 3, S, S)."""
        return self._pixels(self.choice.explained).float().div_(255)

    @property
    def explained(self) -> list[Example]:
        return self.examples(self.choice.explained)

    @property
    def predicted(self) -> Tensor:
        """The classes that the explained images are taken for: (M,)."""
        return torch.from_numpy(self.predicted_N[self.choice.explained])

    def _pixels(self, rows: Sequence[int]) -> Tensor:
        """The images at these positions as uint8 (M, 3, S, S)."""
        return self.images.images_NCHW[torch.tensor(rows)]

    def examples(self, rows: Sequence[int]) -> list[Example]:
        """The images at these positions with truth and prediction."""
        return [
            Example(
                pixels=picture.permute(1, 2, 0).numpy(),
                true=self.class_names[self.labels_N[row]],
                predicted=self.class_names[self.predicted_N[row]],
                confidence=float(self.confidence_N[row]),
            )
            for row, picture in zip(rows, self._pixels(rows), strict=True)
        ]


def views(model: StagedModel, answers: Answers, seed: int, split: str) -> list[Picture]:
    """All of them that this model and this split allow, in the order in which one reads them."""
    layer = last_maps(model, answers.inputs, least=1, before_ceiling=True)
    found = [_grid(answers, split), _confusion(answers, split), *_first_layer(model, answers)]
    if layer is None:
        found += _class_gradients(model, answers)
    else:
        found += [_neurons(model, layer, answers), _grad_cam(model, layer, answers)]
    return [*found, *_embedding(answers, seed, split)]


def _grid(answers: Answers, split: str) -> Picture:
    rows = [row[:IMAGES_EACH] for row in answers.choice.rows]
    shown = sum(map(len, rows))
    return Picture(
        "predictions.png",
        "Predictions",
        f"{shown} images of the {split} split, {len(rows)} classes with up to {IMAGES_EACH} images each, drawn at "
        "random and not chosen for their answers. So few images say little of the accuracy: see the confusion matrix.",
        lambda: drawing.prediction_grid([answers.examples(row) for row in rows]),
    )


def _confusion(answers: Answers, split: str) -> Picture:
    counts_KK = confusion_counts(answers.labels_N, answers.predicted_N, classes=len(answers.class_names))
    right, count = int(counts_KK.trace()), len(answers.labels_N)
    return Picture(
        "confusion.png",
        "Confusion matrix",
        f"All {count:,} images of the {split} split, {right:,} of them right ({right / count:.1%}). A row is a true "
        "class and adds up to 100%; a share of few images is uncertain.",
        lambda: drawing.confusion_plot(counts_KK, answers.class_names),
    )


def _first_layer(model: StagedModel, answers: Answers) -> list[Picture]:
    """Of the convolution that is called first; its filters are colours only where each of them sees all three."""
    calls = calls_of(nn.Conv2d, model, answers.inputs[:1])
    if not calls:
        return []
    weights_FCSS = calls[0].module.get_parameter("weight").detach().float()
    maps_FHW = calls[0].output[0]
    count, colours, height, width = weights_FCSS.shape
    which = f"All {count}" if count <= FILTERS else f"The first {FILTERS} of {count}"
    pictures = [
        Picture(
            "filters.png",
            "Filters of the first convolution",
            f"{which} filters, {height} x {width} px, as colours: grey is zero, brighter is positive, darker negative. "
            "Each is divided by its own largest weight, so strong and weak filters look alike.",
            lambda: drawing.filter_sheet(weights_FCSS[:FILTERS].numpy()),
        ),
        Picture(
            "feature_maps.png",
            "Feature maps of the first convolution",
            f"{which} filters' outputs for one image, before normalisation and activation: red is positive, blue "
            "negative. Each map is divided by its own largest magnitude, so strong and weak maps look alike.",
            lambda: drawing.map_sheet(answers.explained[0].pixels, maps_FHW[:FILTERS].numpy()),
        ),
    ]
    return pictures if colours == 3 else pictures[1:]


def _neurons(model: StagedModel, layer: MapLayer, answers: Answers) -> Picture:
    """Guided backpropagation where it is defined, gradient x input where not."""
    images_MCHW = answers.inputs
    index_M3, values_M = strongest_neurons(model, layer.module, images_MCHW)
    titles = [
        f"channel {channel} at ({row}, {column})\nactivation {value:.3g}"
        for (channel, row, column), value in zip(index_M3.tolist(), values_M.tolist(), strict=True)
    ]
    others = other_nonlinearities(model, images_MCHW[:1])
    gradients_MCHW = input_gradients(model, layer.module, images_MCHW, index_M3, guided=not others)
    which = (
        f"{len(titles)} neurons of {layer.name} ({layer.channels} channels of {layer.height} x {layer.width}): for "
        "each image the neuron, a channel at (row, column), that it excites most, and each channel only once. "
    )
    if others:
        return _gradient_x_input(
            model, answers, gradients_MCHW, titles,
            which + f"The network has {', '.join(others)}, which are no rectifiers, and guided backpropagation is "
            "undefined for them; so this is the neuron's gradient times the network's input. ",
        )  # fmt: skip
    return Picture(
        "guided.png",
        "Guided backpropagation",
        which + "Grey is no influence. The picture shows what the neuron responds to in the image; it tends to redraw "
        "edges whatever the classes are, so it is no reason for a decision.",
        lambda: drawing.heat_pairs(
            answers.explained,
            drawing.signed_channels(gradients_MCHW.numpy(), full=FULL), titles,
            Bar("gray", -1, 1, f"guided gradient of each colour / the picture's {FULL:.1%} quantile of magnitude"),
        ),
    )  # fmt: skip


def _gradient_x_input(
    model: StagedModel, answers: Answers, gradients_MCHW: Tensor, titles: list[str], why: str
) -> Picture:
    heat_MHW = (gradients_MCHW * (answers.inputs - model.mean)).sum(1)
    return Picture(
        "guided.png",
        "Gradient x input (in place of guided backpropagation)",
        why + "Red speaks for it, blue against it; pixels of the mean colour get none by construction, and the "
        "picture is noisy by nature.",
        lambda: drawing.heat_pairs(
            answers.explained,
            drawing.signed_colours(heat_MHW.numpy(), alpha=1, full=FULL), titles,
            Bar(drawing.SIGNED, -1, 1, f"gradient x input / the picture's {FULL:.1%} quantile of magnitude"),
        ),
    )  # fmt: skip


def _grad_cam(model: StagedModel, last: MapLayer, answers: Answers) -> Picture:
    layer = last_maps(model, answers.inputs, least=LEAST, before_ceiling=False)
    assert layer is not None, "there is a last one"
    heat_MHW = grad_cam(model, layer.module, answers.inputs, answers.predicted)
    earlier = (
        f"The last convolution's map has only {last.height} x {last.width} places, so an earlier one is shown. "
        if (layer.height, layer.width) != (last.height, last.width)
        else ""
    )
    titles = [
        title if heat_HW.any() else f"{title}\nno evidence"
        for title, heat_HW in zip(_for_predicted(answers), heat_MHW, strict=True)
    ]
    return Picture(
        "gradcam.png",
        "Grad-CAM",
        f"Where {layer.name} holds evidence for the predicted class, right or wrong. {earlier}The map has "
        f"{layer.height} x {layer.width} places and is enlarged, so outlines mean nothing; each picture has its own "
        "scale, and evidence against the class is not shown.",
        lambda: drawing.heat_pairs(
            answers.explained, drawing.heat_colours(heat_MHW.numpy(), alpha=0.6), titles,
            Bar(drawing.HEAT, 0, 1, "evidence for the predicted class / largest in the picture"),
        ),
    )  # fmt: skip


def _for_predicted(answers: Answers) -> list[str]:
    """Titles that name the predicted class of each explained image."""
    return [f"for {drawing.label(answers.class_names[number])}" for number in answers.predicted]


def _class_gradients(model: StagedModel, answers: Answers) -> list[Picture]:
    """Without a last convolution: what speaks for the predicted class, by pixel; for a transformer by patch as well."""
    images_MCHW, titles = answers.inputs, _for_predicted(answers)
    gradients_MCHW = input_gradients(model, model, images_MCHW, answers.predicted[:, None], guided=False)
    this = "So this is the gradient of the predicted class's logit times the network's input. "
    cuts = [each.module for each in calls_of(nn.Conv2d, model, images_MCHW[:1])]
    if not (cuts and any(isinstance(module, nn.MultiheadAttention) for module in model.modules())):
        why = "No stage of the network gives maps, so there is no last convolution with neurons to look at. "
        return [_gradient_x_input(model, answers, gradients_MCHW, titles, why + this)]
    patch = cuts[0].get_parameter("weight").shape[-1]
    heat_MHW = patch_sums((gradients_MCHW * (images_MCHW - model.mean)).sum(1), patch)
    why = (
        "A transformer's one convolution cuts the image into patches: it has no last convolution with neurons to look "
        "at, and its GELU is no rectifier. "
    )
    by_patch = Picture(
        "gradcam.png",
        "Gradient x input by patch (in place of Grad-CAM)",
        why + f"So this is the predicted class's gradient times the network's input, summed over each patch of {patch} "
        f"x {patch} px: red speaks for the class, blue against it. It knows nothing of the attention between patches.",
        lambda: drawing.heat_pairs(
            answers.explained,
            drawing.signed_colours(heat_MHW.numpy(), alpha=0.6, full=1), titles,
            Bar(drawing.SIGNED, -1, 1, "gradient x input of a patch / largest magnitude in the picture"),
        ),
    )  # fmt: skip
    return [_gradient_x_input(model, answers, gradients_MCHW, titles, why + this), by_patch]


def _embedding(answers: Answers, seed: int, split: str) -> list[Picture]:
    """t-SNE of the features before the output layer; nothing where there is too little to lay out."""
    count, width = answers.features_PE.shape
    if count < 5 or not answers.features_PE.std(axis=0).any():
        return []

    def draw() -> Figure:
        # The start from the two main axes needs two features; from there the picture keeps more of the whole.
        start = "pca" if width > 1 else "random"
        layout = TSNE(perplexity=perplexity, init=start, random_state=seed)
        rows_P = answers.choice.embedded_P
        return drawing.embedding_plot(
            layout.fit_transform(answers.features_PE), answers.labels_N[rows_P],
            answers.labels_N[rows_P] == answers.predicted_N[rows_P], answers.class_names, answers.choice.classes,
        )  # fmt: skip

    perplexity = min(30.0, (count - 1) / 3)
    caption = (
        f"{count} images of the {split} split by t-SNE (perplexity {perplexity:.3g}, seed {seed}) of the {width} "
        "features before the output layer; mistakes are ringed. Near points are alike for the network; distances "
        "between groups, and their sizes, mean nothing."
    )
    return [Picture("embedding.png", "Features", caption, draw)]
