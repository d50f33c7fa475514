"""The notebooks run from the first cell to the last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.runs import tiny_run

pytestmark = pytest.mark.integration

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


def test_all_notebooks_run_and_show_their_plots(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parents[1]))
    monkeypatch.setenv("MARQUEE_RUN", str(tiny_run(tmp_path)))
    notebooks = [nbformat.read(path, as_version=4) for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    for notebook in notebooks:
        for cell in notebook.cells:
            cell.pop("outputs", None)
            if cell.cell_type == "code":
                cell.outputs = []
    # One kernel for all: starting it and importing takes longer than most cells.
    together = nbformat.v4.new_notebook(cells=[cell for some in notebooks for cell in some.cells])
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(together, timeout=300, resources=resources).execute()
    for notebook in notebooks:
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        assert any("image/png" in output.get("data", {}) for output in outputs)
