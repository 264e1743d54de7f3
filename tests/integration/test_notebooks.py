"""The notebooks run as they stand, on the embedded model, and are kept without outputs."""

from __future__ import annotations

import io
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image, ImageChops, ImageStat

from agent import ChatVLLM
from agent.engines import ScriptedEngine
from graphs import draw_png
from graphs.registry import GRAPHS

ROOT = Path(__file__).parents[2]
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCALE = 2.0
"""Of the pictures, which `vllm-agent graph draw` makes."""

# All notebooks run in one process, one after the other, each without the names of those before. The engine is
# held here, so that they share it: it is what each of them would start alone.
HOLD = """
import builtins
from agent import ChatVLLM
builtins.held = ChatVLLM(temperature=0, max_tokens=64)
builtins.held.start()
"""
FORGET = "%reset -f"


def test_there_is_one_for_each_subject() -> None:
    names = [book.stem.partition("_")[2] for book in BOOKS]
    assert names == ["quickstart", "tools", "graphs", "persistence", "retrieval", "approvals"]


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_a_notebook_is_kept_without_outputs(book: Path) -> None:
    for cell in nbformat.read(book, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.engine
def test_all_notebooks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    together = nbformat.v4.new_notebook()
    together.cells.append(nbformat.v4.new_code_cell(HOLD))
    for book in BOOKS:
        together.cells += nbformat.read(book, as_version=4).cells
        together.cells.append(nbformat.v4.new_code_cell(FORGET))
    for number, cell in enumerate(together.cells):
        cell["id"] = f"cell-{number}"
    NotebookClient(
        together,
        timeout=300,
        startup_timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": tmp_path}},
    ).execute()
    said = [output for cell in together.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("345" in str(output.get("text", "")) for output in said)


def picture(name: str) -> bytes:
    """The picture of a graph, as it would be made now."""
    model = ChatVLLM(engine=ScriptedEngine([]))
    return draw_png(GRAPHS[name].build(model=model), scale=SCALE)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_pictures_show_the_graphs_as_they_are(name: str) -> None:
    kept = Image.open(ROOT / "notebooks" / "pictures" / f"{name}.png").convert("RGB")
    now = Image.open(io.BytesIO(picture(name))).convert("RGB")
    again = f"make it again: vllm-agent graph draw {name} -o notebooks/pictures/{name}.png"
    assert kept.size == now.size, again
    # Versions of Pillow smooth edges in ways of their own; a box more or less is far above this.
    difference = ImageStat.Stat(ImageChops.difference(kept, now)).mean
    assert max(difference) < 1.0, again
