"""Pictures of graphs: complete, readable, made without a network."""

from __future__ import annotations

import io
import itertools
import socket
import sys
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from graph_doubles import ScriptedModel
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.constants import END, START
from langgraph.graph import MessagesState, StateGraph
from PIL import Image

from graphs import build_react_graph, draw_mermaid, draw_png, draw_svg
from graphs.layout import DrawnEdge, lay_out
from graphs.shapes import Layout, sampled, text_width

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a picture needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def react() -> Any:
    return build_react_graph(model=ScriptedModel(script=["x"]))


def long_graph() -> Any:
    builder = StateGraph(MessagesState)
    for name in ("retrieve", "rerank", "grade", "rewrite", "answer"):
        builder.add_node(name, lambda state: state)
    builder.add_edge(START, "retrieve")
    builder.add_edge("retrieve", "rerank")
    builder.add_edge("rerank", "grade")
    builder.add_conditional_edges("grade", lambda state: "x", {"<good> & true": "answer", "poor": "rewrite"})
    builder.add_edge("rewrite", "retrieve")
    builder.add_edge("answer", END)
    return builder.compile()


def test_svg_shows_every_node_and_label(react):
    texts = [t.text for t in ET.fromstring(draw_svg(react)).iter(f"{SVG}text")]
    assert set(texts) == {"start", "end", "model", "tools", "tool calls", "answer", "malformed call"}


def test_conditional_edges_are_dashed_and_others_are_not(react):
    dashed = [
        p.get("stroke-dasharray") is not None for p in ET.fromstring(draw_svg(react)).iter(f"{SVG}path")
    ]
    assert sorted(dashed) == [False, False, True, True, True]


def test_nodes_that_run_stand_out(react):
    def fills(**options: Any) -> dict[str | None, str | None]:
        groups = ET.fromstring(draw_svg(react, **options)).iter(f"{SVG}g")
        return {g.get("data-node"): g.findall(f"{SVG}rect")[0].get("fill") for g in groups}

    quiet, lit = fills(), fills(lit=["tools"])
    assert {name for name in quiet if quiet[name] != lit[name]} == {"tools"}


def test_the_drawing_has_a_name_for_those_who_cannot_see_it(react):
    assert "model" in (ET.fromstring(draw_svg(react)).get("aria-label") or "")


def test_labels_are_escaped():
    labels = [t.text for t in ET.fromstring(draw_svg(long_graph())).iter(f"{SVG}text")]
    assert "<good> & true" in labels


def test_png_is_an_image_of_the_size_of_the_svg(react):
    root = ET.fromstring(draw_svg(react))
    image = Image.open(io.BytesIO(draw_png(react, scale=2)))
    assert image.width == pytest.approx(2 * int(root.get("width", 0)), abs=4)
    assert image.height == pytest.approx(2 * int(root.get("height", 0)), abs=4)
    colours = {colour for _, colour in image.getcolors(maxcolors=1 << 20)}
    assert {(255, 255, 255), (0xDC, 0xEF, 0xE3), (0xF6, 0xDE, 0xDB), (0xE6, 0xEB, 0xF8)} <= colours


def test_without_pillow_the_error_says_what_to_do(react, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        draw_png(react)
    assert draw_svg(react)


def test_mermaid_has_the_edges(react):
    text = draw_mermaid(react)
    assert "__start__ --> model;" in text
    assert "tools --> model;" in text
    assert "-.->" in text or ".->" in text


def test_the_same_graph_makes_the_same_picture(react):
    assert draw_svg(react) == draw_svg(build_react_graph(model=ScriptedModel(script=["y"])))


def overlapping(layout: Layout) -> list[tuple[str, str]]:
    return [
        (a.key, b.key)
        for a, b in itertools.combinations(layout.boxes, 2)
        if abs(a.x - b.x) < (a.width + b.width) / 2 and abs(a.y - b.y) < (a.height + b.height) / 2
    ]


names = st.sampled_from([f"node_{i}" for i in range(9)])


@settings(max_examples=60)
@given(st.lists(st.tuples(names, names, st.sampled_from(["", "yes", "a longer label"])), max_size=22))
def test_no_graph_is_drawn_with_boxes_on_top_of_each_other_or_outside_the_picture(triples):
    keys = sorted({key for a, b, _ in triples for key in (a, b)}) or ["alone"]
    edges = [DrawnEdge(a, b, label, bool(label)) for a, b, label in triples]
    layout = lay_out([(key, key, "step") for key in keys], edges)
    assert overlapping(layout) == []
    assert len(layout.arrows) == len(edges)
    for box in layout.boxes:
        assert box.x - box.width / 2 >= 0
        assert box.x + box.width / 2 <= layout.width
        assert box.y - box.height / 2 >= 0
        assert box.y + box.height / 2 <= layout.height
    for arrow in layout.arrows:
        assert all(0 <= x <= layout.width and 0 <= y <= layout.height for x, y in sampled(arrow.curve))


def test_edges_lead_downwards_except_those_that_close_a_cycle():
    layout = lay_out(
        [(key, key, "step") for key in "abcd"],
        [DrawnEdge("a", "b"), DrawnEdge("b", "c"), DrawnEdge("c", "a"), DrawnEdge("a", "d")],
    )
    down = [arrow.curve[0][1] < arrow.curve[-1][1] for arrow in layout.arrows]
    assert down == [True, True, False, True]


def test_words_fit_into_their_boxes():
    label = "a_node_with_quite_a_long_name"
    (box,) = lay_out([(label, label, "step")], []).boxes
    assert box.width > text_width(label, 15)
