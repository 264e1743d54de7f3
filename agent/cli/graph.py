"""``graph``: the graphs that answer, and pictures of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.app import build_graph, build_model, build_tools
from agent.cli.console import note, print_json, print_table, write_file
from agent.cli.options import JSON
from agent.errors import MissingExtraError
from agent.settings import load_settings

if TYPE_CHECKING:
    from agent.app import Graph

_FORMATS = {".mmd": "mermaid", ".md": "mermaid", ".svg": "svg", ".png": "png"}


@click.group()
def graph() -> None:
    """See the graphs that answer, and draw them. No model is loaded."""


@graph.command("list")
@JSON
def list_graphs(as_json: bool) -> None:
    """List the graphs.

    \b
    Example:
      vllm-agent graph list
    """
    from graphs.registry import GRAPHS

    found = [{"name": kind.name, "description": kind.description} for kind in GRAPHS.values()]
    if as_json:
        print_json(found)
    else:
        rows = [[each["name"], each["description"]] for each in found]
        print_table(["name", "description"], rows, stretch=1)


@graph.command()
@click.argument("name", default="react")
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Write a file; its ending (.mmd, .svg, .png) chooses the format.",
)
@click.option("--format", "-f", type=click.Choice(["mermaid", "svg", "png"]), help="[default: mermaid]")
@JSON
def draw(name: str, output: str | None, format: str | None, as_json: bool) -> None:
    """Draw a graph as Mermaid text, SVG or PNG; no network is needed.

    \b
    Examples:
      vllm-agent graph draw
      vllm-agent graph draw react -o react.png
    """
    chosen = format or _format_of(output)
    settings = load_settings({"graph": name})
    built = build_graph(settings, model=build_model(settings), tools=build_tools(settings))
    if as_json:
        print_json(built.get_graph().to_json())
        return
    if chosen == "png" and output is None and sys.stdout.isatty():
        raise click.UsageError("A PNG is nothing for a terminal: give --output FILE.")
    data = _drawn(built, chosen)
    write_file(output or "-", data)
    if output:
        note(f"wrote {output}")


def _format_of(output: str | None) -> str:
    if output is None:
        return "mermaid"
    suffix = Path(output).suffix.lower()
    if suffix not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise click.UsageError(f"{output!r}: its ending chooses the format, and must be one of {known}.")
    return _FORMATS[suffix]


def _drawn(built: Graph, chosen: str) -> bytes:
    from graphs.drawing import draw_mermaid, draw_png, draw_svg

    if chosen == "png":
        try:
            return draw_png(built)
        except ImportError as error:
            raise MissingExtraError(str(error)) from error
    text = draw_svg(built) if chosen == "svg" else draw_mermaid(built)
    return f"{text.rstrip()}\n".encode()
