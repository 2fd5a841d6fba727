"""A tracker gets every number where wandb is well, and costs one warning where it is not."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from da6401.config.schema import TrackingConfig
from da6401.runs.run_folder import RunResult
from da6401.training import tracking
from da6401.training.tracking import LocalTracker, WandbTracker, open_tracker, track_sweep

OFFLINE = TrackingConfig(backend="wandb", timeout=20)
CONFIG = {"model": {"name": "cnn"}, "optimizer": {"lr": 0.01}}
RUN: dict[str, Any] = {"run_id": "r", "name": "n", "group": "", "config": CONFIG}
INTERRUPTED = RunResult(
    status="interrupted", val_accuracy=0.9, val_loss=0.3, best_epoch=1, epochs_run=2, test_accuracy=None,
    test_loss=None, parameters=10, macs=20, seconds=1.5, reason="stopped",
)  # fmt: skip


def started(cfg: TrackingConfig, out: Path) -> WandbTracker:
    return WandbTracker(cfg, run_id="r", name="n", group="", job_type="train", tags=[], config={}, out=out)


def picture(row: int) -> Any:
    raise AssertionError("a run that did not complete shows no pictures")


def track(cfg: TrackingConfig, out: Path, *, run_id: str = "run-1", steps: int = 2) -> None:
    """One short run: a loss at each step."""
    with open_tracker(cfg, run_id=run_id, name="a name", group="a study", config=CONFIG, out=out) as tracker:
        for step in range(1, steps + 1):
            tracker.log(step, {"train/loss": 1.0 / step})
        tracker.finish(INTERRUPTED, picture)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ---- a wandb that misbehaves --------------------------------------------------------------------------------------


class FakeArtifact:
    def __init__(self, name: str, *, type: str) -> None:
        self.name, self.type = name, type
        self.files: list[str] = []

    def add_file(self, path: str) -> None:
        self.files.append(Path(path).name)


class FakeRun:
    def __init__(self, fake: FakeWandb, options: dict[str, Any]) -> None:
        self.fake, self.options = fake, options
        self.id = options["id"]
        self.history: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, Any] = {}
        self.artifacts: list[FakeArtifact] = []
        self.exit_code: int | None = None
        self.offline = options["mode"] == "offline"
        self.dir, self.url = "out/wandb/offline-run-1/files", "a page"

    def log(self, values: dict[str, float], *, step: int, commit: bool) -> None:
        assert commit, "a row that waits for the next one would overwrite the summary"
        self.fake.enter("log")
        self.history.append((step, values))

    def log_artifact(self, artifact: FakeArtifact) -> None:
        self.fake.enter("artifact")
        self.artifacts.append(artifact)

    def finish(self, *, exit_code: int) -> None:
        self.fake.enter("finish")
        self.exit_code = exit_code


class FakeWandb:
    """Does ``trouble[call]()`` on entering a call of that name, and keeps the runs that it was asked for."""

    Settings = SimpleNamespace
    Artifact = FakeArtifact

    def __init__(self) -> None:
        self.trouble: dict[str, Callable[[], None]] = {}
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self.logged_in = True
        self.runs: list[FakeRun] = []
        self.released = threading.Event()

    def enter(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)
        self.trouble.get(call, lambda: None)()

    def hang(self) -> None:
        self.released.wait(60)

    def setup(self, settings: object) -> None:
        self.enter("setup")

    def login(self, *, prompt: bool, verify: bool) -> bool:
        self.enter("login")
        assert not prompt
        assert not verify
        return self.logged_in

    def init(self, **options: Any) -> FakeRun:
        self.enter(f"init {options['mode']}")
        self.enter("init")
        self.runs.append(FakeRun(self, options))
        return self.runs[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    yield wandb
    wandb.released.set()
    for thread in threading.enumerate():
        if thread.name == "wandb-tracker":
            thread.join(10)


def raiser(problem: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise problem

    return fail


def test_a_well_wandb_gets_every_number_and_the_end(
    fake: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    track(OFFLINE, tmp_path, steps=3)
    (run,) = fake.runs
    assert run.history == [(1, {"train/loss": 1.0}), (2, {"train/loss": 0.5}), (3, {"train/loss": 1 / 3})]
    assert run.exit_code == 0
    assert run.options["id"] == "run-1"
    assert run.options["config"] == {"model.name": "cnn", "optimizer.lr": 0.01}
    assert (run.options["job_type"], run.options["tags"]) == ("train", ["part_a"])
    known = {name: value for name, value in dataclasses.asdict(INTERRUPTED).items() if value is not None}
    assert run.summary == known
    assert "test_accuracy" not in known
    assert fake.threads == {"wandb-tracker"}, "the training thread must never be inside wandb"
    assert warnings_in(caplog) == []


def test_offline_decides_before_init_and_asks_nobody(fake: FakeWandb, tmp_path: Path) -> None:
    track(OFFLINE, tmp_path)
    assert [call for call in fake.calls if call not in ("log", "init", "artifact")] == ["init offline", "finish"]


def test_a_failed_run_is_failed_there_too(fake: FakeWandb, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_tracker(OFFLINE, **RUN, out=tmp_path):
        raise ZeroDivisionError
    assert fake.runs[0].exit_code == 1


def test_ids_and_empty_names_are_what_wandb_takes(fake: FakeWandb, tmp_path: Path) -> None:
    with open_tracker(OFFLINE, **RUN | {"run_id": "study/3:a#b"}, out=tmp_path):
        pass
    options = fake.runs[0].options
    assert (options["id"], options["group"], options["entity"]) == ("study-3-a-b", None, None)


@pytest.mark.parametrize("call", ["init", "log", "artifact", "finish"])
def test_a_hang_holds_the_run_up_for_the_timeout_at_most(
    fake: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    fake.trouble[call] = fake.hang
    start = time.monotonic()
    with open_tracker(TrackingConfig(backend="wandb", timeout=1.0), **RUN, out=tmp_path) as tracker:
        for step in range(200):
            tracker.log(step, {"x": 1.0})
        tracker.finish(INTERRUPTED, picture)
        trained = time.monotonic() - start
    assert trained < 0.8, "neither log() nor finish() may wait"
    assert 0.8 < time.monotonic() - start < 5
    (warning,) = warnings_in(caplog)
    assert "tracking.timeout=1 s" in warning


@pytest.mark.parametrize("call", ["init", "log", "artifact", "finish"])
@pytest.mark.parametrize("problem", [ValueError("broken"), SystemExit(4), KeyboardInterrupt()])
def test_whatever_wandb_raises_is_one_warning(
    fake: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str, problem: BaseException
) -> None:
    fake.trouble[call] = raiser(problem)
    track(OFFLINE, tmp_path, steps=5)
    (warning,) = warnings_in(caplog)
    assert type(problem).__name__ in warning
    assert call == "init" or "finish" in fake.calls, "a run that began must be ended"


def test_a_missing_wandb_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    track(OFFLINE, tmp_path)
    (warning,) = warnings_in(caplog)
    assert "wandb" in warning


def test_a_queue_that_nobody_empties_stays_bounded(
    fake: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "QUEUE_LIMIT", 5)
    fake.trouble["init"] = fake.hang
    cfg = TrackingConfig(backend="wandb", timeout=0.1)
    tracker = started(cfg, tmp_path)
    for step in range(50):
        tracker.log(step, {"x": 1.0})
    tracker.close()
    fake.released.set()
    (warning,) = warnings_in(caplog)
    assert "5 values" in warning


def test_online_without_a_login_goes_offline(fake: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fake.logged_in = False
    track(TrackingConfig(backend="wandb", mode="online", timeout=20), tmp_path)
    assert [run.options["mode"] for run in fake.runs] == ["offline"]
    (warning,) = warnings_in(caplog)
    assert "wandb login" in warning


def test_online_stays_offline_where_the_environment_says_so(
    fake: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    track(TrackingConfig(backend="wandb", mode="online", timeout=20), tmp_path)
    assert [run.options["mode"] for run in fake.runs] == ["offline"]
    assert "login" not in fake.calls


def test_online_without_an_answer_goes_offline(
    fake: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.trouble["init online"] = raiser(TimeoutError("no answer"))
    track(TrackingConfig(backend="wandb", mode="online", timeout=20), tmp_path)
    (run,) = fake.runs
    assert (run.options["mode"], len(run.history), run.exit_code) == ("offline", 2, 0)
    assert run.options["id"] != "run-1", "wandb refuses an id that it has begun with"
    (warning,) = warnings_in(caplog)
    assert "no answer" in warning


def test_closing_twice_and_logging_late_do_nothing(fake: FakeWandb, tmp_path: Path) -> None:
    tracker = started(OFFLINE, tmp_path)
    tracker.close()
    tracker.close()
    tracker.log(1, {"x": 1.0})
    assert fake.runs[0].history == []
    assert fake.calls.count("finish") == 1


@pytest.mark.parametrize(
    ("backend", "variable"),
    [("local", "NONE=1"), ("wandb", "WANDB_MODE=disabled"), ("wandb", "WANDB_DISABLED=true")],
)
def test_local_and_disabled_start_no_wandb(
    backend: Literal["local", "wandb"], variable: str, fake: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable.split("="))
    track_sweep(TrackingConfig(backend=backend), study="s", folder=tmp_path)
    with open_tracker(TrackingConfig(backend=backend), **RUN, out=tmp_path) as tracker:
        tracker.log(1, {"x": 1.0})
        tracker.finish(INTERRUPTED, picture)
    assert isinstance(tracker, LocalTracker)
    assert fake.calls == []
    assert list(tmp_path.iterdir()) == []


# ---- the real wandb, in a process of its own: it patches sys.exit, starts a service, hooks the exit -----------------

SCRIPT = """
import os, random, signal, sys, time
from da6401.config.schema import TrackingConfig
from da6401.runs.run_folder import RunResult
from da6401.training.tracking import open_tracker
from pathlib import Path

RESULT = RunResult(
    status="pruned", val_accuracy=0.9, val_loss=0.3, best_epoch=1, epochs_run=2, test_accuracy=None,
    test_loss=None, parameters=10, macs=20, seconds=1.5, reason="",
)

def track(run_id, out, *, mode="offline", timeout=30.0, during=lambda: None):
    cfg = TrackingConfig(backend="wandb", mode=mode, timeout=timeout)
    config = {"seed": 7, "model": {"name": run_id, "filters": [8, 16]}, "data": {"root": "x://me:secret@host"}}
    with open_tracker(cfg, run_id=run_id, name="name of " + run_id, group="a study", config=config, out=Path(out)) as t:
        t.log(1, {"val/loss": float("nan"), "lr": 0.1})
        during()
        t.log(2, {"val/loss": 0.25, "lr": 0.1, "val_accuracy": 0.5})
        t.finish(RESULT, None)

def wait_for_run(out):
    while not any(file.stat().st_size for file in Path(out).glob("wandb/offline-run-*/run-*.wandb")):
        time.sleep(0.05)
    time.sleep(0.5)  # wandb.init still has a few steps to go
"""


def run_script(body: str, folder: Path, *, seconds: float, **env: str) -> subprocess.CompletedProcess[str]:
    """Run SCRIPT + body with a clean home and no W&B settings; warnings are errors there too."""
    folder.mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    home = {"HOME": str(folder), "NETRC": str(folder / "netrc")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT + body],
        cwd=folder,
        env=clean | home | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,  # waits for the pipes' end: a service left behind would hold them open
        text=True,
        timeout=seconds,
        check=False,
    )


def records_of(file: Path) -> list[Any]:
    """The records of a .wandb file: a LevelDB log of protobuf messages behind a header of 7 bytes."""
    record_type = importlib.import_module("wandb.proto.wandb_internal_pb2").Record  # a module without types
    data, block, records, parts = file.read_bytes(), 32768, [], b""
    assert data[:4] == b":W&B"
    at = 7
    while at < len(data):
        if block - at % block < 7:  # the rest of a block that cannot hold a record's header
            at += block - at % block
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(record_type.FromString(parts))
            parts = b""
    return records


def values_of(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_back(out: Path) -> dict[str, Any]:
    """Config, name, group, history and summary of the one run that wandb wrote under a run folder."""
    (file,) = out.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[str, Any] = {"history": [], "summary": {}}
    for record in records_of(file):
        if record.HasField("run"):
            found |= {"id": record.run.run_id, "name": record.run.display_name, "group": record.run.run_group}
            found["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if record.HasField("history"):
            found["history"].append(values_of(record.history.item))
        if record.HasField("summary"):
            found["summary"] |= values_of(record.summary.update)
        if record.HasField("exit"):
            found["exit_code"] = record.exit.exit_code
    return found


def test_two_real_runs_of_one_process_stay_two_and_touch_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        body = """
random.seed(3)
before = random.getstate()
def meanwhile():
    wait_for_run("a")
    track("second", "b")
track("first", "a", during=meanwhile)
assert random.getstate() == before, "wandb has drawn from the program's random numbers"
print("the program's own line")
"""
        done = run_script(body, tmp_path, seconds=30, HTTP_PROXY=proxy, HTTPS_PROXY=proxy, WANDB_BASE_URL=proxy)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert (done.returncode, done.stdout, done.stderr) == (0, "the program's own line\n", "")
    for run_id, folder in (("first", "a"), ("second", "b")):
        run = read_back(tmp_path / folder)
        assert (run["id"], run["name"], run["group"], run["exit_code"]) == (run_id, f"name of {run_id}", "a study", 0)
        assert (run["config"]["model.name"], run["config"]["model.filters"]) == (run_id, [8, 16])
        assert run["config"]["data.root"] == "x://me:***@host"
        assert {"status": "pruned", "val_accuracy": 0.9, "parameters": 10}.items() <= run["summary"].items()
        first, second = run["history"]
        assert math.isnan(float(first["val/loss"]))
        assert (first["_step"], second["_step"], second["val/loss"], second["lr"]) == (1, 2, 0.25, 0.1)


def test_online_without_a_login_prompts_nobody_and_keeps_the_numbers(tmp_path: Path) -> None:
    done = run_script('track("r", "a", mode="online")', tmp_path, seconds=30)
    assert done.returncode == 0
    assert done.stdout == ""
    assert "To go online: wandb login" in done.stderr
    assert len(read_back(tmp_path / "a")["history"]) == 2


def test_a_server_that_never_answers_costs_half_the_timeout(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=20) as server:  # accepts, and says nothing
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        done = run_script(
            'track("r", "a", mode="online", timeout=6)',
            tmp_path,
            seconds=40,
            WANDB_BASE_URL=url,
            WANDB_API_KEY="0" * 40,
        )
        seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    assert "recorded offline" in done.stderr
    assert seconds < 20
    assert len(read_back(tmp_path / "a")["history"]) == 2


def test_a_stopped_service_holds_neither_the_run_nor_the_exit(tmp_path: Path) -> None:
    body = """
def stop_service():
    from wandb.sdk import wandb_setup
    wait_for_run("a")
    pid = wandb_setup._singleton._connection._proc._process.pid
    os.kill(pid, signal.SIGSTOP)
track("r", "a", timeout=2.0, during=stop_service)
sys.exit(7)
"""
    start = time.monotonic()
    done = run_script(body, tmp_path, seconds=30)  # ends: nobody holds stdout open, so the stopped service is gone
    assert done.returncode == 7, done.stderr
    assert time.monotonic() - start < 20
    assert done.stderr.count("W&B is left out") == 1
