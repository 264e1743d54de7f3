"""``tools``: what a model may call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from agent.app import build_registry
from agent.cli.console import print_json, print_table, printable, warn
from agent.cli.options import JSON, TOOLS_CONFIG
from agent.settings import load_settings

if TYPE_CHECKING:
    from tools.registry import ToolDescription, ToolRegistry


@click.group()
def tools() -> None:
    """See the tools that a model may call, and where they come from."""


@tools.command("list")
@TOOLS_CONFIG
@JSON
def list_tools(tools_config: str | None, as_json: bool) -> None:
    """List all tools: the built-in ones and those of installed packages.

    \b
    Example:
      vllm-agent tools list
    """
    registry = _registry(tools_config)
    found = [registry.describe(name) for name in registry.names]
    if as_json:
        print_json([each.to_dict() for each in found])
    else:
        rows = [
            [each.name, each.description.strip().splitlines()[0], _flags(each), each.source] for each in found
        ]
        print_table(["name", "description", "policy", "source"], rows, stretch=1)
    for problem in registry.problems:
        said = str(problem.error)
        named = said.startswith(problem.source)
        warn(f"no tools from {said}" if named else f"no tools from {problem.source}: {said}")


@tools.command()
@click.argument("name")
@TOOLS_CONFIG
@JSON
def show(name: str, tools_config: str | None, as_json: bool) -> None:
    """Show one tool as a model sees it, and how it may be run.

    \b
    Example:
      vllm-agent tools show calculator
    """
    found = _registry(tools_config).describe(name)
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


@tools.command("call")
@click.argument("name")
@click.argument("arguments", default="{}")
@click.option("--yes", is_flag=True, help="Approve the call of a tool that asks first.")
@TOOLS_CONFIG
@JSON
def call_tool(name: str, arguments: str, yes: bool, tools_config: str | None, as_json: bool) -> None:
    """Call one tool as a model would, with ARGUMENTS as a JSON object, under the tool's policy.

    \b
    Examples:
      vllm-agent tools call calculator '{"expression": "15 * 23"}'
      vllm-agent tools call search_find '{"query": "vllm"}' --tools-config tools.toml
    """
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"ARGUMENTS is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise click.BadParameter('ARGUMENTS must be a JSON object, for example \'{"place": "Rome"}\'')
    from langchain_core.messages import ToolCall

    from tools.execution import call, whole_output

    found = _registry(tools_config).get(name)
    outcome = call(found, ToolCall(name=name, args=given, id="cli", type="tool_call"), approved=yes)
    result = whole_output(outcome.message) if outcome.message is not None else repr(outcome.outputs)
    if as_json:
        print_json({"ok": outcome.ok, "result": result, "attempts": outcome.attempts})
    else:
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        click.echo(printable(text), err=not outcome.ok)
    if not outcome.ok:
        raise click.exceptions.Exit(1)


def _registry(tools_config: str | None) -> ToolRegistry:
    registry = build_registry(load_settings({"tools_config": tools_config}))
    click.get_current_context().call_on_close(registry.close)
    return registry


def _kind(schema: dict[str, Any]) -> str:
    kinds = [schema, *schema.get("anyOf", ())]
    return " or ".join(str(kind["type"]) for kind in kinds if "type" in kind) or "any"


def _flags(tool: ToolDescription) -> str:
    policy = tool.policy
    flags = [f"{policy.timeout:g} s" if policy.timeout else "no limit"]
    flags += ["asks first"] if policy.approval else []
    flags += ["repeatable"] if policy.idempotent else []
    return ", ".join(flags)
