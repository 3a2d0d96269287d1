"""The notebooks in examples/ run: their cells' code as plain Python, so that no Jupyter has to be installed."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    cells = json.loads(path.read_text())["cells"]
    namespace = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            assert all(output["output_type"] != "error" for output in cell["outputs"])
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), namespace)
