"""Configs and run folders from anyone: what comes out is a value or an error of ours, never a traceback."""

from __future__ import annotations

import hashlib
import io
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from da6401.config.compose import saved_config
from da6401.config.schema import FolderConfig, PretrainedConfig, RunConfig
from da6401.config.validate import config_from_tree, documented_keys, tree_of
from da6401.errors import ConfigError, RunError, UserError
from da6401.redact import printable, redacted, remember_secrets, safe
from da6401.runs.atomic_files import write_yaml
from da6401.runs.run_folder import (
    BEST,
    CONFIG,
    METRICS,
    RECEIPT,
    RESULT,
    RunResult,
    differences,
    flat,
    read_json,
    read_metrics,
    read_result,
    write_metrics,
    write_result,
)
from da6401.training.checkpoint import load_checkpoint, save_checkpoint
from da6401.training.state import History
from tests.tiny_runs import typed

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
KEYS = sorted({name for name, _, _ in documented_keys()})
NAMES = st.sampled_from(sorted({part for key in KEYS for part in key.split(".")})) | st.text(max_size=8)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["cnn", "resnet18", "folder", "digits", "imagenet", "auto", "${oc.env:HOME}", "???"])
)
TREES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=20
)
TEXTS = st.binary(max_size=200) | st.text(string.printable, max_size=200).map(str.encode)


def _attempt(action: Callable[[], Any]) -> Any:
    """What comes out, or the error of ours; any other is the test's failure."""
    try:
        return action()
    except UserError as error:
        return error


# ---- the schema -------------------------------------------------------------------------------------------------


@QUICK
@given(TREES)
@example({"seed": 10**400})
@example({"model": {"name": []}})
@example({"model": {"name": {"a": 1}}, "data": 3})
def test_any_tree_is_a_config_or_a_config_error(tree: Any) -> None:
    config = _attempt(lambda: config_from_tree(tree))
    assert config.problems if isinstance(config, ConfigError) else isinstance(config, RunConfig)


@QUICK
@given(st.sampled_from(KEYS), TREES)
def test_any_value_of_any_key_is_taken_or_refused_by_name(key: str, value: Any) -> None:
    for config in (RunConfig(), RunConfig(model=PretrainedConfig(), data=FolderConfig(root="x"))):
        tree = tree_of(config)
        *groups, name = key.split(".")
        node = tree
        for group in groups:
            node = node.get(group, {})  # data.table is of one source alone
        if name not in node:
            continue
        node[name] = value
        again = _attempt(lambda: config_from_tree(tree))  # noqa: B023
        if isinstance(again, ConfigError):
            assert any(key in problem for problem in again.problems)
        else:
            assert config_from_tree(tree_of(again)) == again


# ---- the run folder ---------------------------------------------------------------------------------------------


def _result() -> RunResult:
    return RunResult(
        status="completed", val_accuracy=0.5, val_loss=1.0, best_epoch=1, epochs_run=2, test_accuracy=None,
        test_loss=None, parameters=10, macs=20, seconds=1.5, reason="", weights_sha256="0" * 64,
    )  # fmt: skip


def _config(folder: Path) -> Path:
    write_yaml(folder / CONFIG, tree_of(RunConfig()))
    return folder / CONFIG


def _receipt(folder: Path) -> Path:
    (folder / RECEIPT).write_text(json.dumps({"seed": 0, "packages": {"torch": "2"}}))
    return folder / RECEIPT


def _results(folder: Path) -> Path:
    write_result(folder, _result())
    return folder / RESULT


def _metrics(folder: Path) -> Path:
    write_metrics(folder, [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.25}])
    return folder / METRICS


def _checkpoint(folder: Path) -> Path:
    save_checkpoint(folder / BEST, {"model": {"w": torch.arange(9.0)}, "class_names": ["a"]})
    return folder / BEST


READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    CONFIG: (_config, lambda folder: saved_config(folder / CONFIG)),
    RECEIPT: (_receipt, lambda folder: flat(read_json(folder / RECEIPT))),
    RESULT: (_results, read_result),
    METRICS: (_metrics, read_metrics),
    BEST: (_checkpoint, lambda folder: load_checkpoint(folder / BEST)),
}


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(data=st.data())
def test_any_bytes_in_a_run_folder_are_read_or_refused_by_the_files_name(
    name: str, data: st.DataObject, tmp_path: Path
) -> None:
    make, read = READERS[name]
    path = make(tmp_path)
    read(tmp_path)
    whole = path.read_bytes()
    cut = st.integers(0, len(whole) - 1).map(lambda end: whole[:end])
    flip = st.tuples(st.integers(0, len(whole) - 1), st.integers(1, 255)).map(
        lambda at: whole[: at[0]] + bytes([whole[at[0]] ^ at[1]]) + whole[at[0] + 1 :]
    )
    document = st.dictionaries(NAMES, TREES, max_size=5)
    texts = document.map(lambda tree: yaml.safe_dump(tree).encode() if name == CONFIG else json.dumps(tree).encode())
    path.write_bytes(data.draw(cut | flip | TEXTS | texts))
    error = _attempt(lambda: read(tmp_path))
    assert not isinstance(error, RunError) or Path(name).name in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1]\nb: *a\n",
        "\n".join(["a0: &a0 [x]"] + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]),
        "[" * 5000,
        "{a: " * 3000,
        "when: 2020-13-45\n",
        "seed: !!python/object/apply:os.system [echo]\n",
        "? [a]\n: 1\n",
        "seed: " + "9" * 6000 + "\n",
    ],
)
def test_a_config_that_is_meant_to_harm_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises((RunError, ConfigError)):
        saved_config(tmp_path / CONFIG)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"epochs_run": ' + "9" * 6000 + "}", "1e999", '{"a": NaN}'])
def test_json_that_is_meant_to_harm_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / RESULT).write_text(text)
    with pytest.raises(RunError, match=r"result\.json"):
        read_result(tmp_path)
    (tmp_path / METRICS).write_text(text + "\n")
    with pytest.raises(RunError, match="line 1"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"_target_": "os.system"}, "_target_"),
        ({"model": {"name": "cnn", "_target_": "os.system"}}, "model._target_"),
        ({"tracking": {"project": "${oc.env:HOME}"}}, "tracking.project"),
        ({"study": "${oc.env:WANDB_API_KEY}"}, "study"),
        ({"seed": "${oc.decode:1}"}, "seed"),
        ({"model": {"name": "cnn", "filters": [8, "${oc.env:HOME}"]}}, "model.filters.1"),
        ({"hydra": {"callbacks": {"mine": {"_target_": "os.system"}}}}, "hydra"),
        ({"hydra.launcher": {"x": 1}}, "hydra.launcher"),
        ({"study": "../../etc"}, "study"),
    ],
)
def test_a_strangers_config_names_no_code_and_no_other_place(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    write_yaml(tmp_path / CONFIG, tree_of(RunConfig()) | change)
    with pytest.raises(ConfigError) as caught:
        saved_config(tmp_path / CONFIG)
    assert all(key in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    "override",
    [
        "hydra.callbacks.x._target_=os.system", "hydra/launcher=joblib", "+hydra.job.env_set.A=b", "hydra.run.dir=/etc",
        "++model._target_=os.system", "~seed", "study=${oc.env:HOME}", "study=../x", "seed=1,2",
    ],
)  # fmt: skip
def test_overrides_of_a_saved_config_are_values(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        saved_config(_config(tmp_path), [override])
    assert override.lstrip("+~").partition("=")[0] in str(caught.value)


@QUICK
@given(TREES)
def test_any_history_in_a_checkpoint_is_restored_or_refused(value: Any) -> None:
    error = _attempt(lambda: History().restore({"history": dict.fromkeys(History().__dict__, value)}))
    assert error is None or "version" in str(error)


def test_a_pickle_bomb_with_our_checksum_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('executed')",))

    save_checkpoint(tmp_path / BEST, {"model": {}, "x": Bomb()})
    with pytest.raises(RunError, match="no readable checkpoint"):
        load_checkpoint(tmp_path / BEST)


# ---- what is shown ----------------------------------------------------------------------------------------------


@QUICK
@given(st.text(max_size=60))
def test_what_is_shown_steers_no_terminal(text: str) -> None:
    shown = safe(text)
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    assert printable(shown) == shown
    io.TextIOWrapper(io.BytesIO(), "utf-8").write(shown)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgresql://ann:hunter2secret@db/x", "postgresql://ann:***@db/x"),
        ("x=postgresql+psycopg://ann:p@ss:w/hunter2secret@db:5432/x y", "x=postgresql+psycopg://ann:***@db:5432/x y"),
        ("mysql://u:'hunter2secret", "mysql://u:'hunter2secret"),  # no address at all
        ("https://host/?password=hunter2secret&a=1", "https://host/?password=***&a=1"),
        ("sqlite:///outputs/study.db", "sqlite:///outputs/study.db"),
        ("redis://:hunter2secret@host:1", "redis://:***@host:1"),
        ("see http://localhost:8080/path", "see http://localhost:8080/path"),
    ],
)
def test_passwords_are_left_out(text: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("da6401.redact._known", set())  # of the command lines that this process has seen
    assert redacted(text) == kept


def test_a_secret_is_left_out_without_its_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("da6401.redact._known", set())
    monkeypatch.setenv("WANDB_API_KEY", "k3yk3yk3y")
    remember_secrets(["hydra.sweeper.storage=postgresql://ann:tr%40ub4dor@db/x"])
    assert redacted("cannot read 'tr@ub4dor' or tr%40ub4dor with k3yk3yk3y") == "cannot read '***' or *** with ***"


def test_differences_of_any_trees() -> None:
    assert differences({"a": {"b": 1}}, {"a": 2}) == [("a.b", 1, None), ("a", None, 2)]


# ---- plugins ----------------------------------------------------------------------------------------------------

EVIL = """
from pathlib import Path

from da6401.plugins import model

Path({marker!r}).write_text("executed")


@model("evil")
def evil(cfg, num_classes, image_size):
    raise SystemExit
"""


def _strangers_run(folder: Path, marker: Path) -> Path:
    """A run folder that names a plugin wherever a text can stand, and holds its file wherever a file can lie."""
    run = folder / "run"
    places = [run / "plugins" / "evil.py", run / "evil.py", run / "plugin.py", folder / "da6401_plugins.py"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(EVIL.format(marker=str(marker)))
    for place in (folder, run, run / "plugins"):
        info = place / "evil-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[da6401.plugins]\nevil = evil\n")
    write_yaml(run / CONFIG, tree_of(RunConfig()) | {"model": {"name": "evil"}})
    entry = {"file": "evil.py", "sha256": hashlib.sha256(places[0].read_bytes()).hexdigest(), "copy": "plugins/evil.py"}
    (run / RECEIPT).write_text(json.dumps({"seed": 0, "plugins": [entry]}))
    write_result(run, _result())
    save_checkpoint(run / BEST, {"model": {}, "class_names": ["a", "b"]})
    return run


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("evaluate", ()), ("predict", ("x.png",)), ("export", ()), ("explain", ()), ("reproduce", ()),
        ("compare", ("run",)), ("report", ("--out", "page.html")),
    ],
)  # fmt: skip
def test_a_strangers_run_folder_with_a_plugin_in_it_executes_nothing(
    tmp_path: Path, verb: str, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "executed"
    run = _strangers_run(tmp_path, marker)
    for place in (tmp_path, run, run / "plugins"):
        monkeypatch.syspath_prepend(str(place))
    for name in ("DA6401_PLUGIN", "DA6401_PLUGINS", "PLUGIN"):
        monkeypatch.setenv(name, str(run / "plugins" / "evil.py"))
    code, _, err = typed(verb, "run", *more, cwd=tmp_path)
    assert not marker.exists()
    if verb not in ("compare", "report"):
        assert code == 2
        assert "was trained with the plugin evil.py" in err
        (run / RECEIPT).write_text("{}")  # nor where the receipt hides it
        code, _, err = typed(verb, "run", *more, cwd=tmp_path)
        assert code == 2
        assert "model.name='evil': must be one of" in err
        assert not marker.exists()


def test_a_plugin_in_a_run_folder_is_not_run_even_where_it_is_named(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    run = _strangers_run(tmp_path, marker)
    link = tmp_path / "innocent.py"
    link.symlink_to(run / "plugins" / "evil.py")
    for name in ("run/plugins/evil.py", "innocent.py"):
        code, _, err = typed("evaluate", "run", "--plugin", name, cwd=tmp_path)
        assert code == 2
        assert "lies in a run folder, whose files are never run" in err
        assert not marker.exists()


@pytest.mark.parametrize("key", ["plugin", "++plugins", "model.plugin"])
def test_no_key_and_no_yaml_file_names_a_plugin(tmp_path: Path, key: str) -> None:
    marker = tmp_path / "executed"
    run = _strangers_run(tmp_path, marker)
    file = str(run / "evil.py")
    code, _, _ = typed("train", f"{key}={file}", "trainer.epochs=1", cwd=tmp_path)
    assert code == 2
    experiment = tmp_path / "mine" / "experiment"
    experiment.mkdir(parents=True)
    name = key.lstrip("+")
    tree: dict[str, Any] = {name.rpartition(".")[2]: [file]}
    tree = {name.partition(".")[0]: tree} if "." in name else tree
    (experiment / "evil.yaml").write_text("# @package _global_\n" + yaml.safe_dump(tree))
    code, _, _ = typed("train", "--config-dir", "mine", "experiment=evil", cwd=tmp_path)
    assert code == 2
    write_yaml(run / CONFIG, tree_of(RunConfig()) | tree)
    with pytest.raises(ConfigError):
        saved_config(run / CONFIG)
    assert not marker.exists()
