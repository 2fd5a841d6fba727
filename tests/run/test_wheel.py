"""An installed wheel carries its configuration and works from any folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from da6401.config.search_path import conf_dir
from tests.tiny_runs import SMALL, da6401

ROOT = Path(__file__).resolve().parents[2]


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
    env = {"PYTHONPATH": str(site)}
    where = subprocess.run(
        [sys.executable, "-c", "import da6401; print(da6401.__file__)"],
        cwd=elsewhere, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site))
    done = da6401("train", *SMALL, "trainer.epochs=1", "hydra.run.dir=out", cwd=elsewhere, env=env)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "out" / "result.json").exists()
    sweep = ("train", "--multirun", *SMALL, "sweep=part_a", "model.filters=4", "trainer.epochs=1", "study=s")
    done = da6401(*sweep, "hydra.sweeper.n_trials=1", cwd=elsewhere, env=env)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "outputs" / "sweeps" / "s" / "sweep.json").exists()
