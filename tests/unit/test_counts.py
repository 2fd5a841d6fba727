"""Parameters and multiply-accumulates: the assignment's numbers, hooks, and torch's own counter agree."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from da6401.cli import main
from da6401.config.cnn_shapes import filters_of, kernels_of
from da6401.config.schema import CnnConfig, LibraryConfig, Organisation, PretrainedConfig
from da6401.models.build import build_model
from da6401.models.counts import closed_form, count_layers, describe
from tests.networks import cnn


@pytest.mark.parametrize(
    ("organisation", "base", "dense", "parameters", "mega_macs"),
    [
        ("same", 32, 128, 240_010, 197.1),
        ("same", 64, 256, 955_146, 701.7),
        ("double", 32, 256, 7_993_930, 974.6),
        ("halve", 512, 256, 1_985_770, 16_477.8),
    ],
)
def test_the_assignments_numbers(
    organisation: Organisation, base: int, dense: int, parameters: int, mega_macs: float
) -> None:
    cfg = CnnConfig(filters=base, organisation=organisation, dense_width=dense, batch_norm=False)
    sizes: dict[str, Any] = {"height": 224, "width": 224, "filters": filters_of(cfg), "kernels": kernels_of(cfg)}
    formula = closed_form(**sizes, batch_norm=False, dense_width=dense, num_classes=10)
    assert formula[0] == parameters
    assert formula[1] / 1e6 == pytest.approx(mega_macs, abs=0.05)
    with torch.device("meta"):
        model = build_model(cfg, num_classes=10, image_size=224)
    counts = count_layers(model, 224)
    assert (sum(c.parameters for c in counts), sum(c.macs for c in counts)) == formula


def test_the_formula_as_the_assignment_writes_it() -> None:
    m, k, n, height, width = 48, 5, 100, 96, 160
    cells = (height // 32) * (width // 32)
    parameters = m * k**2 * (3 + 4 * m) + 5 * m + n * (cells * m + 1) + 10 * (n + 1) + 10 * m
    macs = height * width * m * k**2 * (3 + 85 / 256 * m) + cells * m * n + 10 * n
    assert closed_form(
        height=height, width=width, filters=[m] * 5, kernels=[k] * 5, batch_norm=True, dense_width=n, num_classes=10
    ) == (parameters, macs)


@settings(max_examples=25, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 3, 5])), min_size=1, max_size=4),
    height=st.integers(16, 45),
    width=st.integers(16, 45),
    batch_norm=st.booleans(),
    dense_width=st.integers(0, 9),
    num_classes=st.integers(2, 12),
)
def test_the_closed_form_equals_the_hooks_at_any_size(
    blocks: list[tuple[int, int]], height: int, width: int, batch_norm: bool, dense_width: int, num_classes: int
) -> None:
    kernels = [kernel for _, kernel in blocks]
    sizes: dict[str, Any] = {
        "filters": [count for count, _ in blocks], "batch_norm": batch_norm, "dense_width": dense_width,
        "num_classes": num_classes,
    }  # fmt: skip
    counts = count_layers(cnn((height, width), kernel_size=kernels, **sizes), (height, width))
    formula = closed_form(height=height, width=width, kernels=kernels, **sizes)
    assert (sum(c.parameters for c in counts), sum(c.macs for c in counts)) == formula


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("mobilenet_v3_large", 65),
        ("vit_b_16", 48),
        ("convnext_tiny", 70),
        ("efficientnet_lite0", 97),
        ("efficientnet_lite2", 97),
    ],
)
def test_torchs_own_counter_agrees(name: str, image_size: int) -> None:
    with torch.device("meta"):
        model = build_model(PretrainedConfig(name=name, weights="none"), num_classes=7, image_size=image_size)
    counts = count_layers(model, image_size)
    # Two operations a MAC. In training mode, for the fused attention of eval is one that the counter does not know.
    with FlopCounterMode(display=False) as counter:
        model.train()(torch.rand(1, 3, image_size, image_size, device="meta"))
    assert 2 * sum(c.macs for c in counts) == counter.get_total_flops()
    assert sum(c.parameters for c in counts) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("library", "arch", "image_size"),
    [
        ("timm", "vit_tiny_patch16_224", 32),
        ("timm", "levit_128s", 64),
        ("timm", "tf_efficientnet_cc_b0_4e", 32),  # its convolutions get weights that depend on the image
        ("torchvision", "swin_t", 64),
        ("torchvision", "swin_v2_t", 64),
    ],
)
def test_torchs_own_counter_agrees_on_networks_of_the_libraries(library: str, arch: str, image_size: int) -> None:
    cfg = LibraryConfig(name=library, arch=arch, weights="none")
    model = build_model(cfg, num_classes=7, image_size=image_size)
    counts = count_layers(model, image_size)
    model.eval().to("meta")  # the counter does not know the CPU's fused attention
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, image_size, image_size, device="meta"))
    assert 2 * sum(c.macs for c in counts) == counter.get_total_flops()
    assert sum(c.parameters for c in counts) == sum(p.numel() for p in model.parameters())


class Attention(nn.Module):
    """Its products run outside all layers: scores by @, the weighted sum by einsum, the output by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 2, stride=2, bias=False)
        self.encoder = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, batch_first=True)
        self.up = nn.ConvTranspose2d(5, 4, 2, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.up(F.conv2d(x_BCHW, self.patches.weight, stride=2))  # 5 x 4 x 4, then 4 x 8 x 8
        y_BTE = self.encoder(y_BCHW.flatten(2).transpose(1, 2))
        scores_BTT = y_BTE @ y_BTE.transpose(1, 2)
        summed_BTE = torch.einsum("btu,bue->bte", scores_BTT, y_BTE)
        return F.scaled_dot_product_attention(summed_BTE, y_BTE, y_BTE).mean(1)


@pytest.mark.parametrize("compiled", [False, True])
def test_products_outside_all_layers_have_rows(compiled: bool) -> None:
    network = Attention()
    if compiled:
        network.forward = torch.compile(network.forward, backend="eager")  # type: ignore[method-assign]  # as users compile one
    fast_path = torch.backends.mha.get_fastpath_enabled()
    counts = {c.name: c for c in count_layers(nn.Sequential(network), 8)}
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    convolution, attention = 4 * 4 * 5 * 3 * 2 * 2, 2 * 64 * 64 * 4
    assert (counts["0"].macs, counts["0"].parameters) == (convolution + 2 * attention, 0)
    assert (counts["0.patches"].macs, counts["0.patches"].parameters) == (0, 5 * 3 * 2 * 2)
    assert counts["0.up"].macs == 4 * 4 * 5 * 4 * 2 * 2
    assert counts["0.encoder.self_attn"].macs == 4 * 64 * 4 * 4 + attention
    assert counts["0.encoder.linear1"].macs == counts["0.encoder.linear2"].macs == 64 * 4 * 6
    rows = describe(list(counts.values())).splitlines()
    assert not any(row.endswith("frozen") for row in rows)
    assert next(row for row in rows if row.startswith("0  ")).split()[1] == "other"


def test_googlenet_costs_what_the_assignment_says_and_so_do_its_cuts() -> None:
    with torch.device("meta"):
        model = build_model(PretrainedConfig(name="googlenet", weights="none"), num_classes=10, image_size=224)
    counts = count_layers(model, 224)
    total = sum(c.macs for c in counts)
    assert total / 1e9 == pytest.approx(1.497, abs=0.001)
    for cut, share in {"conv3": 0.319, "3b": 0.578, "4c": 0.744, "4e": 0.924, "5b": 0.9999}.items():
        through = model.stage_names[: model.stage_names.index(cut) + 1]
        assert sum(c.macs for c in counts if c.stage in through) / total == pytest.approx(share, abs=0.0006)


def test_googlenets_cuts_have_the_shapes_that_the_assignment_lists() -> None:
    with torch.device("meta"):
        model = build_model(PretrainedConfig(name="googlenet", weights="none"), num_classes=10, image_size=224).eval()
    x = torch.empty(1, 3, 224, 224, device="meta")
    cuts = {"conv3": (192, 28, 28), "3b": (480, 14, 14), "4c": (512, 14, 14), "4e": (832, 7, 7), "5b": (1024,)}
    for cut, shape in cuts.items():
        assert tuple(model.run_stages(x, 0, model.stage_names.index(cut) + 1).shape[1:]) == shape


def test_own_networks_are_counted_without_torchs_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes a second, for which a process that trains such a network would wait before its first step."""
    code = (
        "import sys\nfrom da6401.config.schema import PretrainedConfig\nfrom da6401.models.build import build_model\n"
        "from da6401.models.counts import COMPILER, count_layers\n"
        "cfg = PretrainedConfig(name='efficientnet_lite0', weights='none')\n"
        "layers = count_layers(build_model(cfg, num_classes=3, image_size=128), 128)\n"
        "print(COMPILER in sys.modules, sum(layer.macs for layer in layers))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    monkeypatch.setattr("da6401.models.counts.COMPILER", "sys")  # as if it were imported: on the meta device
    model = build_model(PretrainedConfig(name="efficientnet_lite0", weights="none"), num_classes=3, image_size=128)
    assert said == ["False", str(sum(layer.macs for layer in count_layers(model, 128)))]


def test_counting_leaves_the_model_and_the_random_state_alone() -> None:
    torch.manual_seed(0)
    model = build_model(CnnConfig(filters=4, blocks=2, dropout=0.5, block_dropout=0.5), num_classes=3, image_size=8)
    model.freeze(1)
    model.train()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    count_layers(model, 8)
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_table_tells_layers_totals_and_shares() -> None:
    cfg = CnnConfig(filters=[4, 8], dense_width=6)
    model = build_model(replace(cfg, residual=True), num_classes=3, image_size=12)
    model.freeze(1)
    counts = count_layers(model, 12)
    assert [c.stage for c in counts if c.kind == "conv"] == ["block1"] * 3 + ["block2"] * 3
    assert {c.stage for c in counts if c.kind == "linear"} == {"head"}
    shortcut = next(c for c in counts if c.name == "stages.block1.residual.shortcut")
    assert (shortcut.parameters, shortcut.macs) == (3 * 4 + 4, 3 * 4 * 12 * 12)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(c.parameters for c in counts if c.trainable) == trained
    text = describe(counts)
    rows = text.splitlines()
    assert sum(row.endswith("frozen") for row in rows) == sum(c.stage == "block1" for c in counts) > 0
    assert f"parameters {sum(p.numel() for p in model.parameters()):,}, trained {trained:,}" in text
    assert "4 x 12 x 12" in next(row for row in rows if row.startswith("block1.conv "))
    assert rows[-1].split()[0] == "head"
    assert rows[-1].split()[-1] == "1.0000"


@pytest.mark.parametrize(
    "words",
    [(), ("model.filters=32", "model.organisation=same", "data.image_size=224"), ("model.residual=true",),
     ("model=googlenet", "data.image_size=64"), ("model=vit_b_16", "data.image_size=32"),
     ("model=torchvision", "model.arch=swin_t", "model.weights=none", "data=synthetic", "data.image_size=32")],
)  # fmt: skip
def test_the_formulas_that_count_prints_give_its_numbers(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["count", *words]) == 0
    said = capsys.readouterr().out
    formulas = re.findall(r"(\d+(?: [x+] \d+)+) = ([\d,]+)", said)
    assert len(formulas) >= 6, said
    for formula, number in formulas:
        value = sum(math.prod(map(int, term.split(" x "))) for term in formula.split(" + "))
        assert value == int(number.replace(",", "")), formula
    total = re.search(r"([\d,]+) parameters; ([\d,]+) multiply-accumulates an image", said)
    assert total
    closed = re.findall(r"^  (?:parameters|multiply-accumulates) = .* = ([\d,]+)$", said, re.MULTILINE)
    assert closed == (list(total.groups()) if "model.organisation=same" in words else [])


def test_count_needs_classes_and_one_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", "--classes", "1"]) == 2
    assert "at least 2 classes" in capsys.readouterr().err
    assert main(["count", "model.filtrs=3"]) == 2
    assert "model.filters" in capsys.readouterr().err
