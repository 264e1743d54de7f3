"""Ratios as a picture: a bar for each, and a mark where its target is.

    python -m benchmarks.plot          # draws benchmarks/plots/ again, from benchmarks/figures.toml

Benchmarks that print ratios draw their own with ``--plot FILE.svg``. The pictures in ``benchmarks/plots``
show the figures of ``benchmarks/README.md``, from runs at different times; ``figures.toml`` holds them.
"""

from __future__ import annotations

import argparse
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

FIGURES = Path(__file__).with_name("figures.toml")
PLOTS = Path(__file__).with_name("plots")

_NAMES, _BARS, _ROW, _HEAD, _FOOT = 430, 330, 26, 44, 30
_INK, _QUIET, _PAPER = "#1f2933", "#6b7785", "#ffffff"
_MET, _MISSED, _OPEN = "#2f7d4f", "#b8492a", "#64748b"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One ratio."""

    figure: str
    """What over what."""
    ratio: float
    target: float | None = None
    better: str = "less"
    """``"less"`` for «at most» the target, ``"more"`` for «at least»."""

    @property
    def met(self) -> bool | None:
        """Whether the target is; None where there is none."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.better == "less" else self.ratio >= self.target


def bars(rows: Iterable[Mapping[str, Any]]) -> list[Bar]:
    """Take what a bar needs from the rows that a benchmark prints."""
    return [Bar(**{name: row[name] for name in Bar.__dataclass_fields__ if name in row}) for row in rows]


def draw(title: str, shown: Sequence[Bar]) -> str:
    """The picture as an SVG document, on one scale for all bars, which begins at zero."""
    most = max([1.0, *(bar.ratio for bar in shown), *(bar.target or 0 for bar in shown)])
    scale = _BARS / most
    width, height = _NAMES + _BARS + 130, _HEAD + _ROW * len(shown) + _FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif" font-size="13" '
        'role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold" fill="{_INK}">{escape(title)}</text>',
    ]
    for tick in _ticks(most):
        x, bottom = _NAMES + tick * scale, _HEAD + _ROW * len(shown)
        parts.append(f'<path d="M{x:.1f} {_HEAD}V{bottom}" stroke="{_QUIET}" stroke-opacity="0.25"/>')
        parts.append(_text(x, bottom + 16, f"{tick:g}", _QUIET, "middle"))
    for number, bar in enumerate(shown):
        parts += _row(bar, _HEAD + _ROW * number, scale)
    return "\n".join([*parts, "</svg>", ""])


def _row(bar: Bar, top: float, scale: float) -> list[str]:
    colour = {True: _MET, False: _MISSED, None: _OPEN}[bar.met]
    length, middle = bar.ratio * scale, top + _ROW / 2
    parts = [
        _text(_NAMES - 8, middle + 4, bar.figure, _INK, "end"),
        f'<rect x="{_NAMES}" y="{top + 5}" width="{length:.1f}" height="{_ROW - 10}" fill="{colour}"/>',
    ]
    after, told = length, f"{bar.ratio:.2f}"
    if bar.target is not None:
        x = _NAMES + bar.target * scale
        word = "at most" if bar.better == "less" else "at least"
        parts.append(f'<path d="M{x:.1f} {top + 2}v{_ROW - 4}" stroke="{_INK}" stroke-width="2"/>')
        after = max(length, bar.target * scale)
        told += f" ({word} {bar.target:g})"
    parts.append(_text(_NAMES + after + 6, middle + 4, told, colour, "start"))
    return parts


def _text(x: float, y: float, text: str, colour: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'


def _ticks(most: float) -> list[float]:
    """Round numbers from zero on, four to eight of them."""
    step = 10 ** math.floor(math.log10(most))
    while most / step < 4:
        step /= 2
    return [number * step for number in range(int(most / step) + 1)]


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark ``--plot``."""
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the ratios, too")


def save(path: Path | None, title: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Draw the rows of a benchmark to a file, if there is one."""
    if path is not None:
        path.write_text(draw(title, bars(rows)), encoding="utf-8")


def pictures() -> dict[str, str]:
    """The pictures of the README, by their files' names."""
    known = tomllib.loads(FIGURES.read_text(encoding="utf-8"))
    return {f"{name}.svg": draw(one["title"], bars(one["bars"])) for name, one in known.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    PLOTS.mkdir(exist_ok=True)
    for name, picture in pictures().items():
        (PLOTS / name).write_text(picture, encoding="utf-8")
        print(PLOTS / name)


if __name__ == "__main__":
    main()
