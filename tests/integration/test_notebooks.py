"""The notebooks run as they stand, on the embedded model, and are stored without what they printed.

All of them run in one kernel, in which a model is kept open: they ask for the same engine as users do, and
find it started. Between two notebooks every name is forgotten.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from agent import ChatVLLM
from graphs import GRAPHS, draw_png

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

_KEEP = """
import sys
from agent import ChatVLLM
sys.keep_for_the_tests = ChatVLLM(temperature=0, max_tokens=48)
sys.keep_for_the_tests.start()
"""
_FORGET = "get_ipython().reset(new_session=True)"


def test_there_are_the_notebooks_that_the_readme_names() -> None:
    assert len(NOTEBOOKS) == 6
    readme = (FOLDER.parent / "README.md").read_text()
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in readme


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_links_between_notebooks_and_to_pictures_lead_somewhere() -> None:
    import re

    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text())["cells"]:
            for target in re.findall(r"\]\(([^)#:]+)\)", "".join(cell["source"])):
                assert (FOLDER / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("name", GRAPHS)
def test_the_picture_of_a_graph_shows_the_graph(name: str, tmp_path: Path) -> None:
    from PIL import Image, ImageChops

    fresh = tmp_path / "fresh.png"
    fresh.write_bytes(draw_png(GRAPHS[name].build(model=ChatVLLM()), scale=1))
    with Image.open(fresh) as now, Image.open(FOLDER / "pictures" / f"{name}.png") as kept:
        assert now.size == kept.size, f"draw it again: vllm-agent graph draw {name}"
        difference = ImageChops.difference(now.convert("L"), kept.convert("L"))
        # Another version of the font library may draw an edge of a letter in another grey.
        assert sum(difference.histogram()[128:]) < 50, f"draw it again: vllm-agent graph draw {name}"


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_the_notebooks_run(tmp_path: Path) -> None:
    cells: list[Any] = [nbformat.v4.new_code_cell(_KEEP)]
    for path in NOTEBOOKS:
        cells += [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        cells.append(nbformat.v4.new_code_cell(_FORGET))
    together = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        together, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = "\n".join(
        str(output.get("text", output.get("data", "")))
        for cell in together.cells
        for output in cell.get("outputs", ())
    )
    assert "15 * 23 = 345" in printed  # the calculator was called
    assert "slow did not finish within 1 s" in printed
    assert "image/png" in printed
    assert "messages in other sums" in printed
    assert "tea.md" in printed
    assert "No sums today." in printed
