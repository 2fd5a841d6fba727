"""train(...) with a module, data sets and metrics of Python: the same run folder, which says what it does not hold."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from da6401.api import load_run, train
from da6401.commands.export import Wanted, export_run
from da6401.commands.predictor import Predictor
from da6401.errors import InterruptedRun, PluginError, UserError
from da6401.plugins import objects
from da6401.plugins.registered import LOADED
from da6401.runs.run_folder import RECEIPT, data_fingerprint, read_json
from tests.run.test_plugins import write
from tests.sweep.sweeps import open_study
from tests.tiny_runs import SMALL_BACKBONE, typed

FEW = ("trainer.epochs=1", "trainer.batch_size=8", "trainer.threads=1", "trainer.progress=false")


class Squares:
    """Dark and bright images as floats in 0..1, as ToTensor gives them."""

    classes = ("dark", "bright")

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 8, 8), (50 + 100 * (index % 2) + index) / 255), index % 2


class Named(Squares):
    """With these names of classes, each of which has images."""

    def __init__(self, *classes: str) -> None:
        super().__init__(24)
        self.names = classes

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]  # as torchvision's sets have it
        return self.names

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return super().__getitem__(index)[0], index % len(self.names)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(pairs(0, 1))


def pairs(*labels: Any) -> list[tuple[Tensor, Any]]:
    return [(torch.rand(3, 8, 8), label) for label in labels * 12]


def cost(labels: Any, probabilities: Any) -> float:
    return float(3 * (probabilities.argmax(1) != labels).mean())


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))


def test_a_module_data_sets_and_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    run = train(
        *FEW, "data.image_size=8", "trainer.metric=price", out="run",
        model=module, train_data=Squares(24), val_data=Squares(10), metrics={"price": (cost, "minimize")},
    )  # fmt: skip
    assert not LOADED
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items()), "a copy trained"
    accuracy = run.result.val_accuracy
    assert accuracy is not None
    assert run.result.val_metrics["price"] == pytest.approx(3 * (1 - accuracy))
    predictions = run.predictions()
    assert list(predictions["class"]) == ["dark", "bright"] * 5
    receipt = read_json(run.folder / RECEIPT)
    (entry,) = receipt["plugins"]
    assert entry["objects"] == "model=Sequential, train_data=Squares, val_data=Squares, metric price"
    assert "cannot be made again from the folder alone" in entry["note"]
    assert "cannot be made again from the folder alone" in (run.folder / "train.log").read_text()
    trained, names = load_run("run").model()
    assert names == ["dark", "bright"]
    answers = trained(torch.stack([Squares(10)[index][0] for index in range(10)])).softmax(1).detach().numpy()
    assert np.allclose(answers[:, 1], predictions["p(bright)"], atol=1e-6)
    with pytest.raises(UserError, match="no images for the test split"):
        run.evaluate()
    code, _, err = typed("evaluate", "run", cwd=tmp_path)
    assert code == 2, "this process has the objects, but no test split"
    monkeypatch.setattr(objects, "_calls", {})
    code, _, err = typed("reproduce", "run", cwd=tmp_path)
    assert code == 2
    assert "was trained with model=Sequential, train_data=Squares" in err
    assert "remedy: train again with them, or write them into a file" in err


def test_what_a_run_answers_in_the_process_that_has_its_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), (150, 150, 150)).save("a.png")
    run = train(*FEW, "data.image_size=8", out="run", model=network(), train_data=Squares(24))
    assert (run.config.model.name, run.config.data.source) == ("given", "given")
    assert list(run.predict("a.png")["image"]) == ["a.png"]
    assert run.explain()
    assert Predictor.load(run.folder).resize == "stretch", "serve"
    assert export_run(run.folder, Wanted(), tta=False, calibrated=False) == 0
    assert "stretch to 8 px" in capsys.readouterr().out
    assert not LOADED


def test_a_run_and_a_sweep_go_on_with_the_same_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given: Any = {"model": network(), "train_data": Squares(24), "metrics": {"price": (cost, "minimize")}}
    words = (*FEW, "data.image_size=8", "optimizer.lr=choice(1e-3,1e-2,0.1,0.2)", "study=own")
    train(*words, "hydra.sweeper.n_trials=1", multirun=True, **given)
    train(*words, "hydra.sweeper.n_trials=2", multirun=True, **given)
    with pytest.raises(PluginError, match=r"(?s)Sequential.* from Python .*and this command has .*plugin_changed=True"):
        train(*words, "hydra.sweeper.n_trials=3", multirun=True, **{**given, "model": network()})
    other: Any = {**given, "model": network(), "plugin_changed": True}
    sweep = train(*words, "hydra.sweeper.n_trials=3", multirun=True, **other)
    assert len(open_study("own").trials) == 3
    assert [len(run.model()[1]) for run in sweep.runs()] == [2, 2, 2]

    stop = StopsOnce()
    alone = (*FEW, "data.image_size=8", "trainer.epochs=4", "trainer.metric=price")
    with pytest.raises(InterruptedRun):
        train(*alone, out="run", **{**given, "metrics": {"price": stop}})
    with pytest.raises(PluginError, match=r"add plugin_changed=True"):
        train(*alone, out="run", **{**given, "metrics": {"price": cost}})
    run = train(*alone, out="run", **{**given, "metrics": {"price": (stop, "maximize")}})
    assert (run.result.epochs_run, stop.calls > 3) == (4, True)


class StopsOnce:
    """A metric that sends Ctrl-C's signal once, in the training: it is called twice to be checked before."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, labels: Any, probabilities: Any) -> float:
        self.calls += 1
        if self.calls == 3:
            signal.raise_signal(signal.SIGINT)
        return 1.0


def test_a_data_set_that_has_changed_in_place_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = torch.rand(20, 3, 8, 8), torch.arange(20) % 2
    data = TensorDataset(images, labels)
    first = train(*FEW, "data.image_size=8", out="first", model=network(), train_data=data)
    images.mul_(0.5)
    second = train(*FEW, "data.image_size=8", out="second", model=network(), train_data=data)
    assert data_fingerprint(first.folder) != data_fingerprint(second.folder)


def test_objects_of_earlier_calls_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(objects, "KEPT", 1)
    kept = Squares(24)
    runs = [
        train(*FEW, "data.image_size=8", out=name, model=network(), train_data=data)
        for name, data in (("kept", kept), ("gone", Squares(24)), ("last", Squares(24)))
    ]
    assert [run.model()[1] for run in runs] == [["dark", "bright"]] * 3
    assert runs[0].explain()
    with pytest.raises(UserError, match=r"(?s)train data Squares: is no longer held.*remedy: keep it in a variable"):
        runs[1].explain()
    assert list(runs[1].predict(np.zeros((8, 8, 3), np.uint8))["class"])


def test_a_factory_in_a_sweep_and_a_held_out_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[tuple[int, int]] = []

    def factory(num_classes: int, image_size: int) -> nn.Module:
        asked.append((num_classes, image_size))
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))

    given: Any = {"model": factory, "train_data": Squares(30)}
    train(*FEW, "data.image_size=4", "optimizer.lr=choice(1e-3,1e-2)", "study=own", multirun=True, **given)
    assert set(asked) == {(2, 4)}
    trials = open_study("own").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2
    assert len(load_run("outputs/sweeps/own/trial-0").predictions()) == 6
    words = (*FEW, "optimizer.lr=choice(1e-3,1e-2)", "hydra.sweeper.n_jobs=2", "study=two")
    with pytest.raises(UserError, match=r"stay in this process: leave hydra\.sweeper\.n_jobs at 1"):
        train(*words, multirun=True, **given)


def test_a_module_that_freezes_layers_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module = nn.Sequential(body.requires_grad_(False), nn.Linear(4, 2))
    run = train(*FEW, "data.image_size=8", "trainer.ema_decay=0.9", out="run", model=module, train_data=Squares(24))
    assert run.result.trainable_parameters == 4 * 2 + 2
    trained, before = run.model()[0].state_dict(), module.state_dict()
    same = [name for name, tensor in before.items() if torch.equal(tensor, trained[f"stages.network.{name}"])]
    assert same == [name for name in before if name.startswith("0.")]


def test_a_file_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path)
    run = train(*SMALL_BACKBONE, "trainer.epochs=1", "model=tiny", "model.width=3", out="run", plugins=[file])
    assert read_json(run.folder / RECEIPT)["plugins"][0]["file"] == file
    with pytest.raises(PluginError, match=r"add --plugin own_model\.py"):
        run.model()
    assert not LOADED


def test_an_override_that_is_no_text() -> None:
    with pytest.raises(UserError, match=r"\['seed=1'\]: is no text; .* train\(\*OVERRIDES\)"):
        train(["seed=1"])  # type: ignore[call-overload]  # the mistake that is tested


def test_labels_that_are_tensors_and_the_note_of_no_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = pairs(torch.tensor(0), np.int64(1), torch.tensor([2]))
    run = train(*FEW, "data.image_size=8", out="run", model=lambda k, s: nn.Sequential(nn.Flatten(), nn.Linear(192, k)),
                train_data=data)  # fmt: skip
    assert set(run.predictions()["class"]) == {"0", "1", "2"}
    text = (run.folder / "train.log").read_text()
    assert "data=given: 30 train, 6 validation (data.split_seed=0); no test split." in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": 3}, "model=int: is no torch module"),
        ({"val_data": Squares(3)}, "val_data is given without train_data"),
        (
            {"model": nn.Linear(4, 2)},
            r"^train\(\.\.\.\) with Linear: model given cannot compute the answer to \(2, 3, 8, 8\): mat1 and mat2",
        ),
        ({"model": nn.Flatten()}, "answers images .* with .*; it should be"),
        ({"metrics": {"accuracy": cost}}, "the name accuracy is taken"),
        ({"train_data": [1, 2, 3], "model": nn.Flatten()}, "gives other things than pairs"),
        ({"train_data": pairs(0.9, 1.9)}, r"train data list, pair 0: its label is 0\.9\n  rule: .* whole number"),
        ({"train_data": pairs(torch.tensor(0.9))}, "its label is Tensor"),
        ({"train_data": pairs(torch.tensor([0, 1]))}, "its label is Tensor"),
        ({"train_data": pairs("cat", "dog")}, "its label is 'cat'"),
        ({"train_data": pairs(0)}, "gave one class alone, 0: there is nothing to tell apart"),
        ({"train_data": Named("cat", "dog", "cat")}, "gave the class name 'cat' twice"),
        ({"train_data": Squares(24), "val_data": []}, "val_data=list: has no image; leave it out"),
        (
            {"train_data": DataLoader[Any](TensorDataset(torch.rand(4, 3, 8, 8)))},
            r"train_data=DataLoader: is no data set with len\(\).*its \.dataset",
        ),
        ({"train_data": Stream()}, "train_data=Stream: is no data set"),
        ({"train_data": {"a": 1}}, "train_data=dict: is no data set"),
        ({"metrics": [cost]}, "metrics=list: is no dictionary"),
        ({"metrics": {"price": (cost, "minimize", 1)}}, r"metrics\['price'\]: is no function under a name"),
        ({"metrics": {"price": 3}}, r"metrics\['price'\]: is no function under a name"),
        ({"metrics": {"price": (cost, "min")}}, "the direction is maximize or minimize, not 'min'"),
        ({"plugins": "file.py"}, r"plugins='file\.py': is one file; write plugins=\['file\.py'\]"),
    ],
)
def test_what_is_no_model_and_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "train_data" in given:
        given = {"model": network(), **given}
    with pytest.raises(UserError, match=said):
        train(*FEW, "data.image_size=8", out="run", **given)
    assert not LOADED
