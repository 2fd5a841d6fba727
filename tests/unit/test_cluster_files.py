"""The files under docs/cluster/, by the tools that read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import nbformat
import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "docs" / "cluster"


def job() -> dict[str, object]:
    loaded: dict[str, object] = yaml.safe_load((CLUSTER / "kubernetes.yaml").read_text())
    return loaded


def test_the_kubernetes_job_keeps_the_apis_schema() -> None:
    newest = kubernetes_validate.latest_version()
    kubernetes_validate.validate(job(), newest, strict=True)


def test_the_validation_sees_a_wrong_field() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**job(), "speck": {}}, kubernetes_validate.latest_version(), strict=True)


def test_the_notebook_is_one() -> None:
    nbformat.validate(nbformat.reads((CLUSTER / "hosted.ipynb").read_text(), as_version=4))  # type: ignore[no-untyped-call]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_the_batch_script_is_bash() -> None:
    done = subprocess.run(["bash", "-n", CLUSTER / "workers.sbatch"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
