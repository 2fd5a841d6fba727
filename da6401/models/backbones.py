"""Part B's backbones, by name. torch is imported inside the functions: the configuration needs only the facts.

All that was pretrained is a stage (VGG's fc6 and fc7, MobileNet's hidden layer, the last norms of ConvNeXt and ViT),
and the last stage ends in one vector of features an image. So the head is always dropout and one new linear layer:
freezing every stage is a linear probe whose features can be cached, and the head's learning rate is that of new
weights only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from da6401.errors import ModelError
from da6401.registry import BACKBONES, BackboneEntry, Statistics

if TYPE_CHECKING:
    from torch import Tensor, nn

# GoogLeNet and Inception were trained on -1..1; torchvision normalises for ImageNet and then undoes it
# (transform_input=True), which gives exactly this.
MINUS_ONE_TO_ONE: Statistics = ((0.5,) * 3, (0.5,) * 3)


def torchvision(name: str, **options: Any) -> Callable[[int], nn.Module]:
    """Makes torchvision's network of that name, whatever the size of the images."""

    def make(image_size: int) -> nn.Module:
        from torchvision import models

        network: nn.Module = models.get_model(name, weights=None, **options)
        return network

    return make


def _pooled(*modules: nn.Module) -> nn.Module:
    """The modules, then the mean of each map: (B, C, H, W) -> (B, C)."""
    from torch import nn

    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _googlenet(net: Any) -> list[nn.Module]:
    """A stage keeps the pool that follows it, so that a cut after it caches the smaller map."""
    from torch import nn

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


BACKBONES.register(
    "googlenet",
    BackboneEntry(
        stages=("conv1", "conv2", "conv3", "3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"),
        make=torchvision("googlenet", aux_logits=False, init_weights=True),
        cut=_googlenet,
        features=1024,
        min_size=15,
        statistics=MINUS_ONE_TO_ONE,
        imagenet="GoogLeNet_Weights.IMAGENET1K_V1",
        replaced=("fc.", "aux1.", "aux2."),
    ),
)


def _resnet(net: Any) -> list[nn.Module]:
    from torch import nn

    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return [stem, net.layer1, net.layer2, net.layer3, _pooled(net.layer4)]


for _name, _features, _weights in (
    ("resnet18", 512, "ResNet18_Weights.IMAGENET1K_V1"),
    ("resnet50", 2048, "ResNet50_Weights.IMAGENET1K_V2"),
):
    BACKBONES.register(
        _name,
        BackboneEntry(
            stages=("stem", "layer1", "layer2", "layer3", "layer4"),
            make=torchvision(_name),
            cut=_resnet,
            features=_features,
            imagenet=_weights,
            replaced=("fc.",),
        ),
    )


def _inception_v3(net: Any) -> list[nn.Module]:
    from torch import nn

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


BACKBONES.register(
    "inception_v3",
    BackboneEntry(
        stages=(
            *("1a", "2a", "2b", "3b", "4a"),  # convolutions; 2b and 4a end in a pool
            *("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"),
        ),
        make=torchvision("inception_v3", aux_logits=False, init_weights=True),
        cut=_inception_v3,
        features=2048,
        min_size=75,
        trained_at=299,
        statistics=MINUS_ONE_TO_ONE,
        imagenet="Inception_V3_Weights.IMAGENET1K_V1",
        replaced=("fc.", "AuxLogits."),
    ),
)


def _vgg16(net: Any) -> list[nn.Module]:
    """Five groups of convolutions, each with its pool; fc6 keeps VGG's own dropout, fc7's is the head's."""
    from torch import nn

    from da6401.models.pooling import AdaptiveAvgPool2d

    groups: list[nn.Module] = []
    first = 0
    for position, layer in enumerate(net.features):
        if isinstance(layer, nn.MaxPool2d):
            groups.append(net.features[first : position + 1])
            first = position + 1
    fc6 = nn.Sequential(AdaptiveAvgPool2d(net.avgpool.output_size), nn.Flatten(), *net.classifier[0:3])
    return [*groups, fc6, net.classifier[3:5]]


BACKBONES.register(
    "vgg16",
    BackboneEntry(
        stages=("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"),
        make=torchvision("vgg16"),
        cut=_vgg16,
        features=4096,
        min_size=32,
        has_norms=False,
        imagenet="VGG16_Weights.IMAGENET1K_V1",
        replaced=("classifier.6.",),
    ),
)


def _mobilenet_v3_large(net: Any) -> list[nn.Module]:
    """A stage is a run of blocks of one width of output."""
    layers = net.features
    groups = [layers[1:2], layers[2:4], layers[4:7], layers[7:11], layers[11:13], layers[13:16]]
    return [layers[0], *groups, _pooled(layers[16]), net.classifier[0:2]]


BACKBONES.register(
    "mobilenet_v3_large",
    BackboneEntry(
        stages=("stem", "blocks1", "blocks2", "blocks3", "blocks4", "blocks5", "blocks6", "conv_head", "hidden"),
        make=torchvision("mobilenet_v3_large"),
        cut=_mobilenet_v3_large,
        features=1280,
        imagenet="MobileNet_V3_Large_Weights.IMAGENET1K_V2",
        replaced=("classifier.3.",),
    ),
)


BACKBONES.register(
    "efficientnet_v2_s",
    BackboneEntry(
        stages=("stem", "blocks1", "blocks2", "blocks3", "blocks4", "blocks5", "blocks6", "conv_head"),
        make=torchvision("efficientnet_v2_s"),
        cut=lambda net: [*net.features[0:7], _pooled(net.features[7])],
        features=1280,
        trained_at=384,
        imagenet="EfficientNet_V2_S_Weights.IMAGENET1K_V1",
        replaced=("classifier.1.",),
    ),
)


def _convnext_tiny(net: Any) -> list[nn.Module]:
    """features alternates blocks and downsamplings; a downsampling opens the stage that it leads to."""
    from torch import nn

    layers = net.features
    norm = nn.Sequential(net.avgpool, *net.classifier[0:2])
    return [layers[0], layers[1], layers[2:4], layers[4:6], layers[6:8], norm]


BACKBONES.register(
    "convnext_tiny",
    BackboneEntry(
        stages=("stem", "stage1", "stage2", "stage3", "stage4", "norm"),
        make=torchvision("convnext_tiny"),
        cut=_convnext_tiny,
        features=768,
        min_size=32,
        imagenet="ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
        replaced=("classifier.2.",),
    ),
)

PATCH = 16  # side of ViT's patches in px


def _make_vit_b_16(image_size: int) -> nn.Module:
    return torchvision("vit_b_16", image_size=image_size)(image_size)


def _vit_b_16(net: Any) -> list[nn.Module]:
    from da6401.models.vit import ClassToken, PatchTokens

    return [PatchTokens(net), *net.encoder.layers, ClassToken(net.encoder.ln)]


def adapt_positions(
    state: Mapping[str, Tensor], source: str, image_size: int, *, patch: int = PATCH
) -> dict[str, Tensor]:
    """ViT's position embeddings interpolated to the grid of patches that images of this size have."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    if "encoder.pos_embedding" not in state:
        return dict(state)
    try:
        return dict(interpolate_embeddings(image_size, patch, dict(state)))
    except ValueError as error:
        raise ModelError(f"model.weights={source}: its position embeddings are no square grid ({error})") from error


BACKBONES.register(
    "vit_b_16",
    BackboneEntry(
        stages=("patches", *(f"block{number}" for number in range(1, 13)), "norm"),
        make=_make_vit_b_16,
        cut=_vit_b_16,
        features=768,
        min_size=PATCH,
        multiple_of=PATCH,
        imagenet="ViT_B_16_Weights.IMAGENET1K_V1",
        replaced=("heads.",),
        adapt=adapt_positions,
    ),
)


def _make_lite(width: float, depth: float) -> Callable[[int], nn.Module]:
    def make(image_size: int) -> nn.Module:
        from da6401.models.lite import EfficientNetLite

        return EfficientNetLite(num_classes=1000, width=width, depth=depth)

    return make


def _lite_file(version: int) -> Callable[[], Path]:
    def file() -> Path:
        from da6401.models.weights import lite_file

        return lite_file(version)

    return file


# Lite0, 1 and 2 were trained on 224, 240 and 260 px.
for _version, (_width, _depth) in enumerate(((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))):
    BACKBONES.register(
        f"efficientnet_lite{_version}",
        BackboneEntry(
            stages=("stem", "blocks1", "blocks2", "blocks3", "blocks4", "blocks5", "blocks6", "blocks7", "conv_head"),
            make=_make_lite(_width, _depth),
            cut=lambda net: list(net.stages()),
            features=1280,
            statistics=((0.498,) * 3, (0.502,) * 3),
            imagenet_file=_lite_file(_version),
            replaced=("_fc.",),
        ),
    )
