"""Models of timm and torchvision as backbones: the stages are their own forward pass, and frozen ones do not move."""

# B batch, F features

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from da6401.config.backbone_rules import backbone_problems
from da6401.config.schema import LibraryConfig
from da6401.errors import ModelError, UserError
from da6401.models.build import build_model
from da6401.models.cutting import find_cuts, same_operations, split
from da6401.models.libraries import timm_names, torchvision_names
from da6401.registry import BACKBONES, LIBRARIES
from tests.library_families import CASES, enliven


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(("library", "arch", "side", "count"), CASES)
def test_a_library_model_in_stages(library: str, arch: str, side: int, count: int) -> None:
    cfg = LibraryConfig(name=library, arch=arch, weights="none")
    entry = LIBRARIES[library].backbone(arch)
    assert len(entry.stages) == count, entry.stages
    assert backbone_problems(cfg, side) == []
    torch.manual_seed(0)
    original = entry.make(side)
    enliven(original)
    original.eval()
    model = build_model(cfg, num_classes=3, image_size=side)
    for mine, stage in zip(model.stages.values(), entry.cut(copy.deepcopy(original)), strict=True):
        mine.load_state_dict(stage.state_dict())

    # ---- the library's own forward pass, and the same through a cut at every stage ----
    images = torch.rand(2, 3, side, side)
    model.eval()
    features = list[torch.Tensor]()
    for image in torch.split(images, 1):  # one at a time: a CPU's sums depend on the size of the batch
        with torch.no_grad():
            logits = model(image)
            x = model.normalise(image)
            expected_BF = original(x)
            for position in range(count):
                x = model.run_stages(x, position, position + 1)
                if position + 1 < count and not features:  # the second image is there to differ
                    cached = model(x.clone(), first=position + 1)
                    assert torch.equal(cached, logits), "a cached feature gives the same"
        assert torch.equal(x, expected_BF)
        assert x.shape == (1, entry.features)
        features.append(x)
    assert (features[0] - features[1]).abs().max() > 0, "the images make no difference: a vacuous test"

    # ---- frozen stages stay as they are, bit by bit; the others and the head move ----
    depth = count - 1
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.freeze(depth)
    model.train()
    groups = model.parameter_groups()
    assert [bool(group) for group in groups.stages] == [False] * depth + [True]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(images), torch.tensor([0, 1])))
        optimizer.step()
    after = model.state_dict()
    moved = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {entry.stages[-1], "1"}, "1 is the head's linear layer"


def test_what_hands_two_tensors_on_everywhere_is_one_stage() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Any) -> Any:
            return (self.first(x) * self.second(x)).mean((2, 3))

    class Branches(Two):
        def forward(self, x: Any) -> Any:
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    with torch.device("meta"):
        cuts = find_cuts(Two(), 8)
    assert (cuts.names, cuts.whole) == (("body",), "more than one tensor is handed on between its parts")
    assert split(network := Two(), cuts) == [network]
    with torch.device("cpu"), pytest.raises(Exception, match="meta"):
        find_cuts(Branches().to("meta"), 8)


def test_shared_weights_stay_in_one_stage() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(n, 3, 3, padding=1) for n in (3, 3, 3))
            self.out = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, x: Any) -> Any:
            return self.out(self.c(self.a(self.b(self.a(x)))))

    with torch.device("meta"):
        network = Shared()
        cuts = find_cuts(network, 8)
    assert cuts.names == ("a", "c", "out_0")
    assert same_operations(network, split(network, cuts), 8)
    assert not same_operations(network, split(network, cuts)[1:], 8), "a vacuous comparison"


def test_the_input_is_what_the_library_says() -> None:
    from timm import get_pretrained_cfg
    from torchvision import models

    about = get_pretrained_cfg("vit_tiny_patch16_224")
    assert about is not None
    entry = LIBRARIES["timm"].backbone("vit_tiny_patch16_224")
    assert entry.statistics == (tuple(about.mean), tuple(about.std)) == ((0.5,) * 3, (0.5,) * 3)
    assert entry.trained_at == 224
    for arch in ("regnet_y_400mf", "densenet121"):
        preset = models.get_model_weights(arch).DEFAULT.transforms()
        entry = LIBRARIES["torchvision"].backbone(arch)
        assert (list(entry.statistics[0]), list(entry.statistics[1])) == (preset.mean, preset.std)
    ours, theirs = BACKBONES["googlenet"], LIBRARIES["torchvision"].backbone("googlenet")
    assert (theirs.statistics, theirs.features, len(theirs.stages)) == (ours.statistics, 1024, len(ours.stages))


def test_names_that_are_not_there_and_images_that_do_not_fit() -> None:
    (told,) = backbone_problems(LibraryConfig(name="timm", arch="convnext_nanno"), 224)
    assert told.startswith("model.arch=convnext_nanno: timm has no such architecture; did you mean convnext_nano?")
    (told,) = backbone_problems(LibraryConfig(name="torchvision"), 224)
    assert "an architecture is needed" in told
    cfg = LibraryConfig(name="timm", arch="resnet18", freeze_depth=6)
    (told,) = backbone_problems(cfg, 64)
    assert "resnet18 has 5 stages (conv1, layer1, layer2, layer3, layer4); use 0..5" in told
    (told,) = backbone_problems(LibraryConfig(name="torchvision", arch="vit_b_32"), 100)
    assert "data.image_size=100: vit_b_32 does not take such images" in told
    with pytest.raises(UserError, match="no such architecture"):
        LIBRARIES["timm"].backbone("nothing")


@pytest.mark.parametrize(("library", "arch", "side"), [("timm", "vit_tiny_patch16_224", 48), ("timm", "resnet10t", 64)])
def test_a_file_of_timms_own_weights_loads_at_another_size(library: str, arch: str, side: int, tmp_path: Any) -> None:
    import timm

    torch.manual_seed(3)
    original = timm.create_model(arch)
    torch.save(original.state_dict(), tmp_path / "w.pt")
    cfg = LibraryConfig(name=library, arch=arch, weights=str(tmp_path / "w.pt"))
    model = build_model(cfg, num_classes=3, image_size=side)
    kept = original.state_dict()
    (weight,) = (tensor for name, tensor in kept.items() if name in ("conv1.0.weight", "patch_embed.proj.weight"))
    assert any(torch.equal(tensor, weight) for tensor in model.state_dict().values() if tensor.shape == weight.shape)
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=rf"does not fit {arch}"):
        build_model(
            LibraryConfig(name=library, arch=arch, weights=str(tmp_path / "other.pt")), num_classes=3, image_size=side
        )


def test_weights_that_no_network_brings_are_a_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ModelError, match=r"model\.weights=imagenet: cannot fetch the weights of resnet10t"):
            build_model(LibraryConfig(name="timm", arch="resnet10t"), num_classes=3, image_size=64)


def test_the_libraries_are_large() -> None:
    assert len(timm_names()) > 1000
    assert len(torchvision_names()) >= 80
