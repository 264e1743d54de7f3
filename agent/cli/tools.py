"""``tools``: what a model may call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from agent.app import build_registry
from agent.cli.console import print_json, print_table, printable, warn
from agent.cli.options import JSON

if TYPE_CHECKING:
    from tools.registry import ToolDescription


@click.group()
def tools() -> None:
    """See the tools that a model may call, and where they come from."""


@tools.command("list")
@JSON
def list_tools(as_json: bool) -> None:
    """List all tools: the built-in ones and those of installed packages.

    \b
    Example:
      vllm-agent tools list
    """
    registry = build_registry()
    found = [registry.describe(name) for name in registry.names]
    if as_json:
        print_json([each.to_dict() for each in found])
    else:
        rows = [[each.name, each.description.strip().splitlines()[0], _flags(each)] for each in found]
        print_table(["name", "description", "policy"], rows, stretch=1)
    for problem in registry.problems:
        warn(f"no tools from {problem.source}: {problem.error}")


@tools.command()
@click.argument("name")
@JSON
def show(name: str, as_json: bool) -> None:
    """Show one tool as a model sees it, and how it may be run.

    \b
    Example:
      vllm-agent tools show calculator
    """
    found = build_registry().describe(name)
    if as_json:
        print_json(found.to_dict())
        return
    click.secho(found.name, bold=True)
    click.echo(printable(found.description))
    click.echo()
    for parameter, schema in found.parameters.get("properties", {}).items():
        required = "" if parameter in found.parameters.get("required", ()) else ", optional"
        click.secho(f"  {parameter} ({_kind(schema)}{required})", fg="cyan")
        if text := schema.get("description"):
            click.echo(f"      {printable(text)}")
    click.echo()
    for key, value in found.policy.to_dict().items():
        click.echo(f"  {key:<12} {json.dumps(value)}")
    click.secho(f"\nfrom {found.source}", dim=True)


def _kind(schema: dict[str, Any]) -> str:
    kinds = [schema, *schema.get("anyOf", ())]
    return " or ".join(str(kind["type"]) for kind in kinds if "type" in kind) or "any"


def _flags(tool: ToolDescription) -> str:
    policy = tool.policy
    flags = [f"{policy.timeout:g} s" if policy.timeout else "no limit"]
    flags += ["asks first"] if policy.approval else []
    flags += ["repeatable"] if policy.idempotent else []
    return ", ".join(flags)
