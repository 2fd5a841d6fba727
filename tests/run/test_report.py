"""`da6401 report` on a real sweep and run, and served while they change."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from da6401.cli import main
from da6401.runs.run_folder import METRICS
from tests import forked
from tests.outcomes import page_data
from tests.tiny_runs import SMALL

SEARCH = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.filters=choice(2,4)")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of six trials of one epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("report"))
        patch.setattr("sys.argv", ["da6401"])
        words = [*SMALL, "trainer.epochs=1", "study=s", *SEARCH, "hydra.sweeper.n_trials=6"]
        assert main(["train", "--multirun", *words]) == 0
        return Path("outputs/sweeps/s").absolute()


def test_a_sweeps_page_has_every_section(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (sweep / "study.db").read_bytes()
    assert main(["report", str(sweep)]) == 0
    page = sweep / "report.html"
    assert str(page) in capsys.readouterr().out
    assert page.stat().st_size < 3_000_000
    assert (sweep / "study.db").read_bytes() == before
    data = page_data(page)
    assert data["title"] == "Sweep s"
    titles = [section["title"] for section in data["parts"][0]["sections"]]
    assert titles[:2] == ["Result", "History"]
    for title in ("Learning curves", "Parallel coordinates", "Importance and correlation", "Slices", "Timeline"):
        assert title in titles
    winner = json.loads((sweep / "sweep.json").read_text())["best"][0]
    assert data["parts"][1]["title"] == f"The winner: trial-{winner['trial']}"
    blocks = [block for section in data["parts"][0]["sections"] for block in section["blocks"]]
    commands = [block["text"] for block in blocks if block["kind"] == "command"]
    assert commands == [f"da6401 reproduce {sweep}/trial-{winner['trial']}"]
    trials = next(block["trials"] for block in blocks if block["kind"] == "trials")
    assert [trial["number"] for trial in trials] == list(range(6))
    assert trials[0]["same"] == "This is the default configuration."
    assert {key for trial in trials[1:] for key, _, _ in trial["changes"]} == {"optimizer.lr", "model.filters"}


def test_a_run_and_a_sweep_compared(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "both.html"
    assert main(["report", str(sweep / "trial-0"), str(sweep), "--out", str(out)]) == 0
    assert [part["title"] for part in page_data(out)["parts"]][:3] == ["Side by side", "Run trial-0", "Sweep s"]


def test_a_study_elsewhere_is_named(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = tmp_path / "s"
    alone.mkdir()
    assert main(["report", str(alone), "--storage", f"sqlite:///{sweep}/study.db"]) == 0
    trials = page_data(alone / "report.html")["parts"][0]["sections"][-1]["blocks"][-1]["trials"]
    assert len(trials) == 6
    assert trials[0]["curves"]["val_accuracy"]  # from the study: the folders are on another machine
    assert main(["report", str(alone), "--storage", f"sqlite:///{tmp_path}/none.db"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_folder_without_a_run_ends_in_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "neither a run nor a sweep" in capsys.readouterr().err


@contextmanager
def watched(folder: Path) -> Iterator[str]:
    """`da6401 report --watch` in a process of its own, ended with Ctrl-C, and its address."""
    with forked.begun(["report", str(folder), "--watch"], cwd=folder) as running:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", running.out.read_text())):
            assert running.process.is_alive(), running.err.read_text()
            time.sleep(0.02)
        yield found.group()
        running.send(signal.SIGINT)
        code, _, errors = running.end(30)
        assert (code, errors) == (0, "")


def get(address: str, **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(
        address, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(), str(answer.headers.get("ETag"))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), ""


@pytest.mark.integration
def test_two_watchers_follow_a_sweep(sweep: Path) -> None:
    files = sorted(sweep.rglob("*"))
    with watched(sweep) as one, watched(sweep) as other:
        assert "connect-src 'self'" in get(one)[1]
        status, text, stamp = get(one + "data.json")
        assert (status, json.loads(text)["title"]) == (200, "Sweep s")
        assert get(one + "data.json", If_None_Match=stamp)[0] == 304
        assert get(one + "data.json", Host="evil.example")[0] == 403
        assert get(one + "../etc/passwd")[0] == 404
        with (sweep / "trial-1" / METRICS).open("a") as file:
            file.write('{"epoch": 2, "val_accuracy": 0.123456}\n')
        for address in (one, other):
            deadline = time.monotonic() + 20
            while "0.12346" not in get(address + "data.json")[1]:
                assert time.monotonic() < deadline, "the change was not seen"
                time.sleep(0.3)
    assert sorted(sweep.rglob("*")) == files
