"""Where the boxes and arrows of a drawn graph go: layers from top to bottom, without any library.

The method is the classical one for layered drawings (Sugiyama, Tagawa and Toda 1981), cut down to the size
of agent graphs: break cycles, assign layers by longest path, split long edges with invisible points, order
each layer by the barycentre of its neighbours, then move everything towards its neighbours. The renderers
in :mod:`graphs.drawing` share the result, so an SVG and a PNG of one graph show the same picture.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from graphs.shapes import (
    FONT_SIZE,
    LABEL_SIZE,
    Arrow,
    Box,
    Kind,
    Layout,
    Point,
    text_width,
    vertical_curve,
    with_labels_placed,
)

MARGIN = 28.0
_BOX_HEIGHT = 42.0
_LAYER_GAP = 76.0
_COLUMN_GAP = 44.0
_PADDING = 22.0
_PORT_GAP = 26.0
_LOOP_REACH = 46.0
_SWEEPS = 12
_STRAIGHT = 8.0


@dataclass(frozen=True)
class DrawnEdge:
    """An edge to draw: from where to where, with which words, dashed if it depends on a decision."""

    source: str
    target: str
    label: str = ""
    dashed: bool = False


def lay_out(nodes: Sequence[tuple[str, str, Kind]], edges: Sequence[DrawnEdge]) -> Layout:
    """Place ``nodes`` (key, label, kind) and ``edges``; the result depends on nothing but these."""
    plan = _Plan(nodes, edges)
    plan.assign_layers()
    plan.split_long_edges()
    plan.order_layers()
    plan.place()
    return plan.finish()


@dataclass
class _Cell:
    """A box or, for a long edge, an invisible point that it passes through."""

    key: str
    width: float
    layer: int = 0
    x: float = 0.0
    box: bool = True
    above: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)


class _Plan:
    def __init__(self, nodes: Sequence[tuple[str, str, Kind]], edges: Sequence[DrawnEdge]) -> None:
        self.nodes = nodes
        self.cells = {
            key: _Cell(key, max(84.0, text_width(label, FONT_SIZE) + 2 * _PADDING)) for key, label, _ in nodes
        }
        self.edges = [edge for edge in edges if edge.source in self.cells and edge.target in self.cells]
        self.loops = [edge for edge in self.edges if edge.source == edge.target]
        self.links = [edge for edge in self.edges if edge.source != edge.target]
        self.upward = _back_edges([key for key, _, _ in nodes], self.links)
        self.routes: list[list[str]] = []
        self.layers: list[list[str]] = []

    def assign_layers(self) -> None:
        """Longest path from the top, over edges that lead downwards."""
        down = [self._downwards(index) for index in range(len(self.links))]
        for _ in self.cells:  # at most one pass per node, since there is no cycle left
            for upper, lower in down:
                self.cells[lower].layer = max(self.cells[lower].layer, self.cells[upper].layer + 1)

    def split_long_edges(self) -> None:
        """One invisible cell in every layer that an edge crosses."""
        for index in range(len(self.links)):
            upper, lower = self._downwards(index)
            route = [upper]
            for layer in range(self.cells[upper].layer + 1, self.cells[lower].layer):
                key = f"{index}/{layer}"
                self.cells[key] = _Cell(key, 24.0, layer=layer, box=False)
                route.append(key)
            route.append(lower)
            for one, two in itertools.pairwise(route):
                self.cells[one].below.append(two)
                self.cells[two].above.append(one)
            self.routes.append(route)

    def order_layers(self) -> None:
        """Sort each layer by where its neighbours are, down and up in turn, until nothing is gained."""
        count = 1 + max((cell.layer for cell in self.cells.values()), default=0)
        self.layers = [[c.key for c in self.cells.values() if c.layer == layer] for layer in range(count)]
        best, fewest = [list(layer) for layer in self.layers], self._crossings()
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            order = range(1, count) if down else range(count - 2, -1, -1)
            for layer in order:
                rank = {key: i for i, key in enumerate(self.layers[layer - 1 if down else layer + 1])}
                self.layers[layer] = sorted(
                    self.layers[layer], key=lambda key: self._barycentre(key, rank, down)
                )
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(layer) for layer in self.layers], crossings
        self.layers = best

    def place(self) -> None:
        """Give every cell its x: packed first, then drawn towards its neighbours as far as room allows."""
        for layer in self.layers:
            x = 0.0
            for key in layer:
                self.cells[key].x = x + self.cells[key].width / 2
                x += self.cells[key].width + _COLUMN_GAP
        for sweep in range(2 * _SWEEPS):
            for layer in self.layers if sweep % 2 == 0 else reversed(self.layers):
                wanted = [self._pull(key, down=sweep % 2 == 0) for key in layer]
                self._settle(layer, wanted)

    def finish(self) -> Layout:
        """Boxes and curves, moved into a frame that starts at zero."""
        boxes = [self._box(key, label, kind) for key, label, kind in self.nodes]
        arrows = with_labels_placed([*self._link_arrows(), *self._loop_arrows()], boxes)
        return _framed(boxes, arrows)

    def _downwards(self, index: int) -> tuple[str, str]:
        edge = self.links[index]
        return (edge.target, edge.source) if index in self.upward else (edge.source, edge.target)

    def _barycentre(self, key: str, rank: dict[str, int], down: bool) -> float:
        neighbours = self.cells[key].above if down else self.cells[key].below
        if not neighbours:
            return float(self.layers[self.cells[key].layer].index(key))
        return sum(rank[n] for n in neighbours) / len(neighbours)

    def _crossings(self) -> int:
        total = 0
        for upper, lower in zip(self.layers, self.layers[1:], strict=False):
            rank = {key: i for i, key in enumerate(lower)}
            ends = [rank[n] for key in upper for n in sorted(self.cells[key].below, key=rank.__getitem__)]
            total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
        return total

    def _pull(self, key: str, *, down: bool) -> float:
        cell = self.cells[key]
        neighbours = (cell.above if down else cell.below) or cell.above or cell.below
        if not neighbours:
            return cell.x
        return sum(self.cells[n].x for n in neighbours) / len(neighbours)

    def _settle(self, layer: list[str], wanted: list[float]) -> None:
        """Move a layer to where it wants to be, keeping its order and its gaps.

        Pushing from the left and from the right each give a valid placing; their mean is one, too.
        """
        cells = [self.cells[key] for key in layer]
        gaps = [(a.width + b.width) / 2 + _COLUMN_GAP for a, b in itertools.pairwise(cells)]
        left, right = list(wanted), list(wanted)
        for i, gap in enumerate(gaps):
            left[i + 1] = max(left[i + 1], left[i] + gap)
        for i in range(len(gaps) - 1, -1, -1):
            right[i] = min(right[i], right[i + 1] - gaps[i])
        for cell, a, b in zip(cells, left, right, strict=True):
            cell.x = (a + b) / 2

    def _y(self, layer: int) -> float:
        return layer * (_BOX_HEIGHT + _LAYER_GAP)

    def _box(self, key: str, label: str, kind: Kind) -> Box:
        cell = self.cells[key]
        return Box(key, label, kind, cell.x, self._y(cell.layer), cell.width, _BOX_HEIGHT)

    def _link_arrows(self) -> list[Arrow]:
        ports = self._ports()
        arrows = []
        for index, (edge, route) in enumerate(zip(self.links, self.routes, strict=True)):
            top = (ports[index, route[0]], self._y(self.cells[route[0]].layer) + _BOX_HEIGHT / 2)
            bottom = (ports[index, route[-1]], self._y(self.cells[route[-1]].layer) - _BOX_HEIGHT / 2)
            middle = [(self.cells[key].x, self._y(self.cells[key].layer)) for key in route[1:-1]]
            if not middle and abs(top[0] - bottom[0]) < _STRAIGHT:
                bottom = (top[0], bottom[1])
            points = [top, *middle, bottom]
            if index in self.upward:
                points.reverse()
            curve = vertical_curve(points)
            arrows.append(Arrow(curve, edge.dashed, edge.label, curve[0]))
        return arrows

    def _ports(self) -> dict[tuple[int, str], float]:
        """Where on a box's side each edge begins or ends, so that no two share a point."""
        sides: dict[tuple[str, bool], list[tuple[float, int]]] = defaultdict(list)
        for index, route in enumerate(self.routes):
            sides[route[0], True].append((self.cells[route[1]].x, index))
            sides[route[-1], False].append((self.cells[route[-2]].x, index))
        ports = {}
        for (key, _), ends in sides.items():
            cell = self.cells[key]
            gap = min(_PORT_GAP, (cell.width - 24) / max(1, len(ends) - 1))
            for place, (_, index) in enumerate(sorted(ends)):
                ports[index, key] = cell.x + (place - (len(ends) - 1) / 2) * gap
        return ports

    def _loop_arrows(self) -> list[Arrow]:
        arrows = []
        for edge in self.loops:
            cell = self.cells[edge.source]
            x, y = cell.x + cell.width / 2, self._y(cell.layer)
            reach = x + _LOOP_REACH
            curve = ((x, y + 9), (reach, y + 30), (reach, y - 30), (x, y - 9))
            arrows.append(Arrow(curve, edge.dashed, edge.label, curve[0]))
        return arrows


def _back_edges(order: Sequence[str], links: Sequence[DrawnEdge]) -> set[int]:
    """Indices of edges that close a cycle in a depth-first walk; these are drawn upwards."""
    leaving: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for index, edge in enumerate(links):
        leaving[edge.source].append((index, edge.target))
    state: dict[str, int] = {}
    back: set[int] = set()

    def visit(key: str) -> None:
        state[key] = 1
        for index, target in leaving[key]:
            if state.get(target) == 1:
                back.add(index)
            elif target not in state:
                visit(target)
        state[key] = 2

    for key in order:
        if key not in state:
            visit(key)
    return back


def _framed(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Layout:
    corners = [*_corners(boxes, arrows)]
    left, top = min(x for x, _ in corners) - MARGIN, min(y for _, y in corners) - MARGIN
    right, bottom = max(x for x, _ in corners) + MARGIN, max(y for _, y in corners) + MARGIN
    return Layout(
        tuple(Box(b.key, b.label, b.kind, b.x - left, b.y - top, b.width, b.height) for b in boxes),
        tuple(
            Arrow(
                tuple((x - left, y - top) for x, y in a.curve),
                a.dashed,
                a.label,
                (a.label_at[0] - left, a.label_at[1] - top),
            )
            for a in arrows
        ),
        right - left,
        bottom - top,
    )


def _corners(boxes: Iterable[Box], arrows: Iterable[Arrow]) -> Iterable[Point]:
    for box in boxes:
        yield box.x - box.width / 2, box.y - box.height / 2
        yield box.x + box.width / 2, box.y + box.height / 2
    for arrow in arrows:
        yield from arrow.curve
        half = text_width(arrow.label, LABEL_SIZE) / 2
        yield arrow.label_at[0] - half, arrow.label_at[1]
        yield arrow.label_at[0] + half, arrow.label_at[1]
