"""One small architecture of each family of timm and torchvision."""

from __future__ import annotations

import torch
from torch import nn

# One small architecture of a family, the side of the images in px, and how many stages it has.
TIMM = {
    "resnet10t": (64, 5), "convnext_atto": (64, 5), "vit_tiny_patch16_224": (32, 13), "deit_tiny_patch16_224": (32, 13),
    "beit_base_patch16_224": (32, 13), "swin_tiny_patch4_window7_224": (224, 5), "mobilenetv3_small_050": (64, 8),
    "efficientnet_lite0": (64, 9), "regnetx_002": (64, 5), "ghostnet_050": (64, 12), "mixer_s32_224": (64, 9),
    "xcit_nano_12_p16_224": (64, 3), "edgenext_xx_small": (64, 5), "mobilevit_xxs": (64, 7), "lcnet_050": (64, 8),
    "pvt_v2_b0": (64, 5), "repvit_m0_9": (64, 5), "fasternet_t0": (64, 6), "dla46_c": (64, 7), "cs3darknet_s": (64, 6),
    "resnetv2_18": (64, 5), "vgg11": (32, 9), "hgnetv2_b0": (64, 6), "starnet_s1": (64, 5), "levit_128s": (224, 4),
}  # fmt: skip
TORCHVISION = {
    "alexnet": (64, 7), "convnext_tiny": (32, 8), "densenet121": (32, 8), "efficientnet_b0": (32, 9),
    "mnasnet0_5": (32, 10), "mobilenet_v2": (32, 19), "mobilenet_v3_small": (32, 14), "regnet_y_400mf": (32, 5),
    "resnet34": (32, 5), "shufflenet_v2_x0_5": (32, 5), "squeezenet1_1": (32, 9), "swin_t": (32, 8),
    "vgg11_bn": (32, 10), "vit_b_32": (32, 13), "googlenet": (32, 12), "inception_v3": (75, 16), "maxvit_t": (224, 6),
}  # fmt: skip
CASES = [("timm", arch, *facts) for arch, facts in TIMM.items()]
CASES += [("torchvision", arch, *facts) for arch, facts in TORCHVISION.items()]


def enliven(network: nn.Module) -> None:
    """Give random weights a signal that reaches the features, and other running statistics than those of the start."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and "running_var" not in name and tensor.numel() < 100_000:
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.05)
