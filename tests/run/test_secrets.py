"""A key or a database's password is in no file that a run or a sweep leaves, and in nothing that they print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_runs import SMALL, da6401

PASSWORD, KEY = "hunter2-in-the-address", "0123456789abcdef0123456789abcdef01234567"
QUICK = (*SMALL, "trainer.epochs=1")

# A database that takes any password: sqlite under another scheme's name, as a plain install has no server.
SITE = """
import sqlalchemy
import sqlalchemy.dialects as dialects
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

class Guarded(SQLiteDialect_pysqlite):
    name = "sqlite"
    supports_statement_cache = True

    def create_connect_args(self, url):
        return super().create_connect_args(sqlalchemy.engine.URL.create("sqlite", database=url.database))

dialects.registry.register("guarded", "sitecustomize", "Guarded")
"""


def _holds(folder: Path, secret: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_a_run_keeps_no_secret(tmp_path: Path) -> None:
    done = da6401(
        "train", *QUICK, "hydra.run.dir=run", "tracking=wandb", "tracking.timeout=60",
        f"hydra.sweeper.storage=postgresql://ann:{PASSWORD}@localhost/x", cwd=tmp_path, env={"WANDB_API_KEY": KEY},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
    assert "ann:***@localhost" in (tmp_path / "run" / ".hydra" / "hydra.yaml").read_text()
    assert "ann:***@localhost" in (tmp_path / "run" / "receipt.json").read_text()
    for secret in (PASSWORD, KEY):
        assert _holds(tmp_path, secret) == []
        assert secret not in done.stdout + done.stderr


def test_a_sweep_keeps_no_secret(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    done = da6401(
        "train", "--multirun", *QUICK, "study=s", "optimizer.lr=choice(0.001,0.01)", "hydra.sweeper.n_trials=1",
        f"hydra.sweeper.storage='guarded://ann:{PASSWORD}@host/{tmp_path}/study.db'", cwd=tmp_path,
        env={"WANDB_API_KEY": KEY, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "study.db").exists()
    assert (tmp_path / "outputs" / "sweeps" / "s" / "trial-0" / "result.json").exists()
    for secret in (PASSWORD, KEY):
        assert _holds(tmp_path, secret) == []
        assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://ann:{PASSWORD}@nowhere.invalid/x",  # no such name: nothing to wait for
        f"postgresql://ann:{PASSWORD}@host:{PASSWORD}/x",
        f"no://a:{PASSWORD}@h",
    ],
)
def test_an_address_that_fails_is_told_without_its_password(tmp_path: Path, address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "da6401", "train", "--multirun", *QUICK, "study=s", "seed=0,1",
         "hydra.sweeper.n_trials=1", f"hydra.sweeper.storage='{address}'"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "hydra.sweeper.storage" in done.stderr
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert _holds(tmp_path, PASSWORD) == []
