"""Pictures of graphs, made here: no network, no Graphviz, no browser.

LangGraph's own PNG comes from a web service or a system package. Both formats below are drawn from one
layout (:mod:`graphs.layout`); PNG needs Pillow, SVG and Mermaid need nothing.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from langchain_core.runnables.graph import Graph
from langgraph.constants import END, START

from graphs.layout import DrawnEdge, lay_out
from graphs.shapes import FONT_SIZE, LABEL_SIZE, Arrow, Box, Kind, Layout, Point, sampled, text_width

if TYPE_CHECKING:
    from langgraph.pregel import Pregel
    from PIL import ImageDraw, ImageFont

_FILL: dict[Kind, str] = {"start": "#dcefe3", "end": "#f6dedb", "step": "#e6ebf8"}
_EDGE: dict[Kind, str] = {"start": "#4c8f67", "end": "#b0594e", "step": "#5b6fae"}
_LIT_FILL, _LIT_EDGE = "#ffe08a", "#9a6a00"
_INK, _LINE, _QUIET, _PAPER = "#1f2430", "#5a6172", "#495065", "#ffffff"
_CORNER = 10.0
_HEAD_LENGTH, _HEAD_HALF = 9.0, 4.5
_DASH, _DASH_GAP = 6.0, 4.5
_OVERSAMPLING = 3
_NAMES = {START: "start", END: "end"}
_KINDS: dict[str, Kind] = {START: "start", END: "end"}


def draw_mermaid(graph: Pregel[Any, Any, Any, Any]) -> str:
    """The graph as Mermaid text, for Markdown pages and ``mermaid.live``."""
    return graph.get_graph().draw_mermaid()


def draw_svg(graph: Pregel[Any, Any, Any, Any], *, lit: Collection[str] = ()) -> str:
    """The graph as an SVG document.

    Every part has a class (``paper``, ``edge``, ``node``, ``lit``), so that a page can give it colours of its
    own; without a page the colours are those of the PNG.

    Args:
        graph: A compiled graph.
        lit: Names of nodes to make stand out, for example those that run.
    """
    return _svg(_layout_of(graph.get_graph()), frozenset(lit))


def draw_png(graph: Pregel[Any, Any, Any, Any], *, scale: float = 2.0) -> bytes:
    """The graph as a PNG image.

    Args:
        graph: A compiled graph.
        scale: Pixels per unit of the layout; 2 is sharp on most screens.

    Raises:
        ImportError: Pillow is not installed; :func:`draw_svg` does without.
    """
    return _png(_layout_of(graph.get_graph()), scale)


def _layout_of(graph: Graph) -> Layout:
    # START first, so that cycles are broken where a reader would break them.
    keys = sorted(graph.nodes, key=lambda key: (key != START, key == END))
    nodes = [(key, _NAMES.get(key, graph.nodes[key].name), _KINDS.get(key, "step")) for key in keys]
    edges = [DrawnEdge(e.source, e.target, str(e.data or ""), e.conditional) for e in graph.edges]
    return lay_out(nodes, edges)


def _svg(layout: Layout, lit: frozenset[str]) -> str:
    width, height = math.ceil(layout.width), math.ceil(layout.height)
    nodes = f"A graph of {', '.join(box.label for box in layout.boxes)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="Inter, Helvetica, Arial, sans-serif" role="img" '
        f"aria-label={quoteattr(nodes)}>",
        f'<rect class="paper" width="100%" height="100%" fill="{_PAPER}"/>',
        *(_svg_line(arrow) for arrow in layout.arrows),
        *(_svg_label(arrow) for arrow in layout.arrows if arrow.label),
        *(_svg_box(box, lit=box.key in lit) for box in layout.boxes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _svg_line(arrow: Arrow) -> str:
    start, *rest = _shortened(arrow.curve)
    path = f"M{_xy(start)} " + " ".join(
        "C" + " ".join(_xy(p) for p in rest[i : i + 3]) for i in range(0, len(rest), 3)
    )
    dash = f' stroke-dasharray="{_DASH} {_DASH_GAP}"' if arrow.dashed else ""
    head = " ".join(_xy(point) for point in _head(arrow.curve))
    return (
        f'<path class="edge" d="{path}" fill="none" stroke="{_LINE}" stroke-width="1.6"{dash}/>'
        f'<polygon class="head" points="{head}" fill="{_LINE}"/>'
    )


def _svg_label(arrow: Arrow) -> str:
    (x, y), half = arrow.label_at, text_width(arrow.label, LABEL_SIZE) / 2
    return (
        f'<rect class="paper" x="{x - half - 4:.1f}" y="{y - 9:.1f}" width="{2 * half + 8:.1f}" height="18" '
        f'fill="{_PAPER}"/>'
        f'<text class="label" x="{x:.1f}" y="{y + 4:.1f}" font-size="{LABEL_SIZE}" '
        f'text-anchor="middle" fill="{_QUIET}">'
        f"{escape(arrow.label)}</text>"
    )


def _svg_box(box: Box, *, lit: bool) -> str:
    edge, fill = (_LIT_EDGE, _LIT_FILL) if lit else (_EDGE[box.kind], _FILL[box.kind])
    return (
        f'<g class="node {box.kind}{" lit" if lit else ""}" data-node={quoteattr(box.key)}>'
        f'<rect x="{box.x - box.width / 2:.1f}" y="{box.y - box.height / 2:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{_radius(box):.1f}" fill="{fill}" '
        f'stroke="{edge}" stroke-width="{2.6 if lit else 1.6}"/>'
        f'<text x="{box.x:.1f}" y="{box.y + 5:.1f}" font-size="{FONT_SIZE}" text-anchor="middle" '
        f'fill="{_INK}">{escape(box.label)}</text></g>'
    )


def _png(layout: Layout, scale: float) -> bytes:
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise ImportError("drawing a PNG needs Pillow: pip install pillow (SVG needs nothing)") from error
    # Drawn larger and scaled down, because Pillow's lines and arcs are not smooth by themselves.
    zoom = scale * _OVERSAMPLING
    size = (math.ceil(layout.width * zoom), math.ceil(layout.height * zoom))
    image = Image.new("RGB", size, _PAPER)
    pen = _Pen(ImageDraw.Draw(image), zoom)
    for arrow in layout.arrows:
        pen.arrow(arrow)
    for arrow in layout.arrows:
        pen.label(arrow)
    for box in layout.boxes:
        pen.box(box)
    small = image.resize(
        (math.ceil(size[0] / _OVERSAMPLING), math.ceil(size[1] / _OVERSAMPLING)), Image.Resampling.LANCZOS
    )
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue()


class _Pen:
    """Draws one layout on a Pillow image; coordinates are those of the layout."""

    def __init__(self, draw: ImageDraw.ImageDraw, zoom: float) -> None:
        self._draw = draw
        self._zoom = zoom

    def arrow(self, arrow: Arrow) -> None:
        points = list(sampled(_shortened(arrow.curve)))
        for stroke in _dashes(points) if arrow.dashed else [points]:
            self._draw.line(
                [self._at(p) for p in stroke], fill=_LINE, width=round(1.6 * self._zoom), joint="curve"
            )
        self._draw.polygon([self._at(p) for p in _head(arrow.curve)], fill=_LINE)

    def label(self, arrow: Arrow) -> None:
        if not arrow.label:
            return
        (x, y), half = arrow.label_at, text_width(arrow.label, LABEL_SIZE) / 2 + 4
        self._draw.rectangle([self._at((x - half, y - 9)), self._at((x + half, y + 9))], fill=_PAPER)
        self._text(arrow.label, arrow.label_at, LABEL_SIZE, _QUIET)

    def box(self, box: Box) -> None:
        corner = (box.x - box.width / 2, box.y - box.height / 2)
        opposite = (box.x + box.width / 2, box.y + box.height / 2)
        self._draw.rounded_rectangle(
            [self._at(corner), self._at(opposite)],
            radius=_radius(box) * self._zoom,
            fill=_FILL[box.kind],
            outline=_EDGE[box.kind],
            width=round(1.6 * self._zoom),
        )
        self._text(box.label, (box.x, box.y), FONT_SIZE, _INK)

    def _text(self, text: str, centre: Point, size: float, colour: str) -> None:
        self._draw.text(self._at(centre), text, fill=colour, font=self._font(size), anchor="mm")

    def _font(self, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        from PIL import ImageFont

        return ImageFont.load_default(size * self._zoom)

    def _at(self, point: Point) -> Point:
        return point[0] * self._zoom, point[1] * self._zoom


def _radius(box: Box) -> float:
    return _CORNER if box.kind == "step" else box.height / 2


def _xy(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"


def _direction(curve: Sequence[Point]) -> Point:
    """Which way a curve points at its end, as a vector of length one."""
    (x0, y0), (x1, y1) = curve[-2], curve[-1]
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    return (x1 - x0) / length, (y1 - y0) / length


def _shortened(curve: Sequence[Point]) -> tuple[Point, ...]:
    """The curve without the part that its arrow head covers."""
    dx, dy = _direction(curve)
    x, y = curve[-1]
    return (*curve[:-1], (x - dx * _HEAD_LENGTH * 0.8, y - dy * _HEAD_LENGTH * 0.8))


def _head(curve: Sequence[Point]) -> tuple[Point, Point, Point]:
    dx, dy = _direction(curve)
    x, y = curve[-1]
    back_x, back_y = x - dx * _HEAD_LENGTH, y - dy * _HEAD_LENGTH
    return (
        (x, y),
        (back_x - dy * _HEAD_HALF, back_y + dx * _HEAD_HALF),
        (back_x + dy * _HEAD_HALF, back_y - dx * _HEAD_HALF),
    )


def _dashes(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Cut a line into dashes by the length walked along it."""
    on, left = True, _DASH
    stroke = [points[0]]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        walked = 0.0
        while length - walked > left:
            walked += left
            spot = (x0 + (x1 - x0) * walked / length, y0 + (y1 - y0) * walked / length)
            if on:
                yield [*stroke, spot]
            on = not on
            left = _DASH if on else _DASH_GAP
            stroke = [spot]
        left -= length - walked
        stroke.append((x1, y1))
    if on and len(stroke) > 1:
        yield stroke
