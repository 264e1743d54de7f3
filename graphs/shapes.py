"""The shapes that a drawn graph is made of, and where their words go.

Coordinates are in pixels, y grows downwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Point = tuple[float, float]
Kind = Literal["start", "end", "step"]

FONT_SIZE = 15
LABEL_SIZE = 12
_CURVE_STEPS = 24


@dataclass(frozen=True)
class Box:
    """A node in its place; ``x`` and ``y`` are its centre."""

    key: str
    label: str
    kind: Kind
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Arrow:
    """An edge in its place: cubic Bézier curves that share end points, the arrow head at the last one."""

    curve: tuple[Point, ...]
    """A start point, then three points per curve: two controls and an end."""

    dashed: bool
    label: str
    label_at: Point


@dataclass(frozen=True)
class Layout:
    """A whole drawing."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    width: float
    height: float


def text_width(text: str, size: float) -> float:
    """About how wide ``text`` is in a plain sans-serif font; no font is loaded for it."""
    narrow, wide = "fijlrt.,:;'|![]() ", "mwMW@%"
    units = sum(0.32 if c in narrow else 0.86 if c in wide else 0.66 if c.isupper() else 0.56 for c in text)
    return units * size


def vertical_curve(points: Sequence[Point]) -> tuple[Point, ...]:
    """Bézier curves through ``points`` that leave and arrive vertically."""
    curve: list[Point] = [points[0]]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        bend = (y1 - y0) * 0.45
        curve += [(x0, y0 + bend), (x1, y1 - bend), (x1, y1)]
    return tuple(curve)


def with_labels_placed(arrows: Sequence[Arrow], boxes: Sequence[Box]) -> list[Arrow]:
    """Put each label on its arrow or beside it, wherever it hides least of everything else."""
    taken = [_Area(b.x, b.y, b.width / 2 + 4, b.height / 2 + 4) for b in boxes]
    lines = [list(sampled(arrow.curve)) for arrow in arrows]
    placed = []
    for index, arrow in enumerate(arrows):
        if not arrow.label:
            placed.append(arrow)
            continue
        others = [point for i, line in enumerate(lines) if i != index for point in line]
        best = min(_spots(arrow, lines[index]), key=lambda spot: spot[0] + _hidden(spot[1], others, taken))[1]
        taken.append(best)
        placed.append(replace(arrow, label_at=(best.x, best.y)))
    return placed


@dataclass(frozen=True)
class _Area:
    """A rectangle, by its centre and half its sides."""

    x: float
    y: float
    across: float
    along: float

    def holds(self, point: Point) -> bool:
        return abs(point[0] - self.x) < self.across and abs(point[1] - self.y) < self.along

    def overlaps(self, other: _Area) -> bool:
        return (
            abs(other.x - self.x) < self.across + other.across
            and abs(other.y - self.y) < self.along + other.along
        )


def _spots(arrow: Arrow, line: Sequence[Point]) -> Iterable[tuple[float, _Area]]:
    """Places for a label, each with what is against it: far from the middle, or beside the arrow."""
    across, along = text_width(arrow.label, LABEL_SIZE) / 2 + 4, LABEL_SIZE * 0.75
    for share in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8):
        x, y = line[round(share * (len(line) - 1))]
        for side in (0, -1, 1):
            cost = abs(share - 0.5) * 4 + abs(side) * 1.5
            yield cost, _Area(x + side * (across + 6), y, across, along)


def _hidden(area: _Area, points: Sequence[Point], taken: Sequence[_Area]) -> float:
    return sum(area.holds(point) for point in points) * 2.0 + sum(area.overlaps(a) for a in taken) * 50.0


def sampled(curve: Sequence[Point]) -> Iterator[Point]:
    """Points along a curve, close enough together to draw it with straight lines."""
    yield curve[0]
    for start in range(0, len(curve) - 1, 3):
        for step in range(1, _CURVE_STEPS + 1):
            yield bezier(curve[start : start + 4], step / _CURVE_STEPS)


def bezier(points: Sequence[Point], t: float) -> Point:
    """The point at ``t`` (0 to 1) of a cubic Bézier curve given by four points."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = points
    a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
    return a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3
