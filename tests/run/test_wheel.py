"""An installed wheel carries its configuration and works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from da6401.config.search_path import conf_dir
from tests.tiny_runs import SMALL

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_wheel_works_from_any_folder(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shipped = {
        path.relative_to(site / "da6401" / "conf").as_posix() for path in (site / "da6401" / "conf").rglob("*.yaml")
    }
    assert shipped == {path.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml")}
    run = ["train", *SMALL, "trainer.epochs=1", "hydra.run.dir=out"]
    sweep = ["train", "--multirun", *SMALL, "sweep=part_a", "model.filters=4", "trainer.epochs=1", "study=s"]
    code = (
        f"import sys, da6401; assert da6401.__file__.startswith({str(site)!r}), da6401.__file__; from da6401.cli "
        f"import main; sys.exit(main({run!r}) or main({[*sweep, 'hydra.sweeper.n_trials=1']!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "out" / "result.json").exists()
    assert (elsewhere / "outputs" / "sweeps" / "s" / "sweep.json").exists()
