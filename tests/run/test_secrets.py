"""A key or a database's password is in no file that a run or a sweep leaves, and in nothing that they print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.dialects as dialects
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL

from tests.forked import command
from tests.tiny_runs import SMALL

PASSWORD, KEY = "hunter2-in-the-address", "0123456789abcdef0123456789abcdef01234567"
QUICK = (*SMALL, "trainer.epochs=1")


class Guarded(SQLiteDialect_pysqlite):
    """A database that takes any password: sqlite under another scheme's name, as a plain install has no server."""

    name = "sqlite"
    supports_statement_cache = True

    def create_connect_args(self, url: URL) -> Any:
        return super().create_connect_args(URL.create("sqlite", database=url.database))


def _guarded_is_known() -> None:
    dialects.registry.register("guarded", __name__, "Guarded")


def _holds(folder: Path, secret: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_a_run_keeps_no_secret(tmp_path: Path) -> None:
    words = [
        "train", *QUICK, "hydra.run.dir=run", "tracking=wandb", "tracking.timeout=60",
        f"hydra.sweeper.storage=postgresql://ann:{PASSWORD}@localhost/x",
    ]  # fmt: skip
    code, out, errors = command(words, cwd=tmp_path, env={"WANDB_API_KEY": KEY})
    assert code == 0, errors
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
    assert "ann:***@localhost" in (tmp_path / "run" / ".hydra" / "hydra.yaml").read_text()
    assert "ann:***@localhost" in (tmp_path / "run" / "receipt.json").read_text()
    for secret in (PASSWORD, KEY):
        assert _holds(tmp_path, secret) == []
        assert secret not in out + errors


def test_a_sweep_keeps_no_secret(tmp_path: Path) -> None:
    words = [
        "train", "--multirun", *QUICK, "study=s", "optimizer.lr=choice(0.001,0.01)", "hydra.sweeper.n_trials=1",
        f"hydra.sweeper.storage='guarded://ann:{PASSWORD}@host/{tmp_path}/study.db'",
    ]  # fmt: skip
    code, out, errors = command(words, cwd=tmp_path, env={"WANDB_API_KEY": KEY}, before=_guarded_is_known)
    assert code == 0, errors
    assert (tmp_path / "study.db").exists()
    assert (tmp_path / "outputs" / "sweeps" / "s" / "trial-0" / "result.json").exists()
    for secret in (PASSWORD, KEY):
        assert _holds(tmp_path, secret) == []
        assert secret not in out + errors


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://ann:{PASSWORD}@nowhere.invalid/x",  # no such name: nothing to wait for
        f"postgresql://ann:{PASSWORD}@host:{PASSWORD}/x",
        f"no://a:{PASSWORD}@h",
    ],
)
def test_an_address_that_fails_is_told_without_its_password(tmp_path: Path, address: str) -> None:
    words = ["train", "--multirun", *QUICK, "study=s", "seed=0,1", "hydra.sweeper.n_trials=1"]
    code, out, errors = command([*words, f"hydra.sweeper.storage='{address}'"], cwd=tmp_path)
    assert code == 2, errors
    assert "hydra.sweeper.storage" in errors
    assert "Traceback" not in errors
    assert PASSWORD not in out + errors
    assert _holds(tmp_path, PASSWORD) == []
