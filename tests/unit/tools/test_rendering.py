import dataclasses
import datetime
import itertools
import json
from decimal import Decimal
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.messages import ToolMessage
from pydantic import BaseModel

from tools import ToolError
from tools.rendering import cut, render, storable


class Plain:
    pass


class Named:
    def __str__(self) -> str:
        return "named"


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Point(BaseModel):
    x: int
    near: "Point | None" = None


@dataclasses.dataclass
class Size:
    width: float
    tags: set[str]


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        ("", ""),
        (3, "3"),
        (True, "true"),
        (2.5, "2.5"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (None, "Done. The tool returned no value."),
        (b"bytes of text", "bytes of text"),
        (b"\xff\x00\x01", "(binary data, 3 bytes, not shown)"),
        ([], "[]"),
        (["a", "b"], '["a", "b"]'),
        ({"a": [1, None], 2: "ä"}, '{"a": [1, null], "2": "ä"}'),
        ({("a", 1): 2}, '{"[\\"a\\", 1]": 2}'),
        ({"n": float("nan")}, '{"n": "nan"}'),
        ({3, 1, 2}, "[1, 2, 3]"),
        ({"b", "a"}, '["a", "b"]'),
        (Point(x=1, near=Point(x=2)), '{"x": 1, "near": {"x": 2, "near": null}}'),
        (Size(1.5, {"b", "a"}), '{"width": 1.5, "tags": ["a", "b"]}'),
        (Colour.RED, "red"),
        (datetime.date(2026, 11, 22), "2026-11-22"),
        (Decimal("1.10"), "1.10"),
        (Plain(), "(Plain object without a text form)"),
        ({"o": Plain()}, '{"o": "(Plain object without a text form)"}'),
        (Named(), "named"),
        (10**5000, "(integer of about 5,000 digits)"),
        ("half \ud83d a pair", "half ? a pair"),
        (iter([1, 2]), "[1, 2]"),
        (range(10**12).__iter__(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_tool_returns_becomes_text(value, text):
    rendered = render(value)
    assert isinstance(rendered, str)
    rendered.encode()
    if text is not None:
        assert rendered == text


def test_an_iterator_that_never_ends_is_not_waited_for():
    assert len(json.loads(render(itertools.count()))) == 1000


def test_structures_that_contain_themselves():
    loop: dict[str, object] = {"a": 1}
    loop["self"] = loop
    assert render(loop) == '{"a": 1, "self": "(contains itself)"}'
    shared = [1]
    assert render([shared, shared]) == "[[1], [1]]"


def test_very_deep_structures():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in render(deep)


def test_nothing_that_changes_between_runs_is_shown():
    assert "0x" not in render([Plain(), Plain, {"k": Plain()}])


async def test_an_awaitable_is_a_mistake_that_is_named():
    async def work() -> None: ...

    with pytest.raises(ToolError, match="async def"):
        render(work())


def test_content_blocks_and_messages_pass_through():
    blocks = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    ]
    assert render(blocks) == blocks
    message = ToolMessage("a", tool_call_id="1")
    assert render(message) is message
    assert render([message])[0] is message


def test_data_that_only_looks_like_blocks_stays_data():
    assert render([{"type": "text", "name": "x"}]) == '[{"type": "text", "name": "x"}]'


def test_short_content_is_not_cut():
    assert cut("a" * 200, 200) is None
    assert cut([{"type": "text", "text": "a" * 200}], 200) is None


@pytest.mark.parametrize("size", [201, 1000, 5_000_000])
def test_long_text_is_cut_with_a_note_that_says_how_long_it_was(size):
    shorter = cut("a" * size, 200)
    assert isinstance(shorter, str)
    assert len(shorter) <= 200
    assert f"{size:,} characters" in shorter


def test_long_blocks_are_cut_and_pictures_kept():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
    content = [{"type": "text", "text": "a" * 150}, picture, {"type": "text", "text": "b" * 500}, "c" * 100]
    shorter = cut(content, 200)
    assert isinstance(shorter, list)
    assert picture in shorter
    texts = [block if isinstance(block, str) else block.get("text", "") for block in shorter]
    assert "750 characters" in texts[-1]
    assert sum(map(len, texts)) <= 260


def test_artifacts_that_a_checkpoint_can_hold_are_kept_as_they_are():
    document = Document("text", metadata={"score": 0.5, "at": datetime.date(2026, 1, 2), "path": Path("a")})
    for artifact in (None, {"a": [1, 2.5, b"x"]}, [Document("text"), document], "text"):
        assert storable(artifact) is artifact


@pytest.mark.parametrize(
    "artifact",
    [
        Plain(),
        {"o": Plain()},
        2**70,
        "half \ud83d",
        {1: 2},
        [np.float64(0.5)],
        [Document("text", metadata={"score": np.float64(0.5)})],
        [Document("text", metadata={"scores": [{"o": Plain()}]})],
    ],
    ids=lambda value: type(value).__name__,
)
def test_artifacts_that_it_cannot_hold_become_text(artifact):
    assert isinstance(storable(artifact), str)
