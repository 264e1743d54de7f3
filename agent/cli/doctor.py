"""``doctor``: what is installed and set up, what is wrong, and how to mend it."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from agent.cli.console import note, print_json, printable, terminal_width
from agent.cli.options import DATABASE, JSON, TOOLS_CONFIG

if TYPE_CHECKING:
    from agent.doctor.findings import Finding

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red"), "not used": ("–", None)}
_NAME = 16
"""Columns of a name."""


@click.command()
@click.option(
    "--deep",
    is_flag=True,
    help="Look longer: import vLLM in a child process, hash the embedded "
    "model, start MCP servers, look at every conversation.",
)
@click.option("--model", "-m", metavar="MODEL", help="Hub id or directory. [default: as in the settings]")
@click.option("--base-url", metavar="URL", help="Ask this server. [default: as in the settings]")
@TOOLS_CONFIG
@DATABASE
@JSON
def doctor(deep: bool, as_json: bool, **flags: str | None) -> None:
    """Say what is installed and set up here, what is wrong, and which command mends it.

    Looks at versions, device, engine, models, database, tools, Studio and settings. Without --deep it takes
    about two seconds, and makes or changes nothing. Keys and passwords are not shown. «✓» is in order, «!»
    works with a loss, «✗» does not work, «–» is not used. The exit code is 1 if something does not work.

    \b
    Examples:
      vllm-agent doctor
      vllm-agent doctor --deep
      vllm-agent doctor --base-url http://localhost:8000/v1
      vllm-agent doctor --json | jq '.[] | select(.verdict == "problem")'
    """
    from agent.doctor.examination import examine

    findings = examine(flags=flags, deep=deep)
    if as_json:
        print_json([each.to_dict() for each in findings])
    else:
        _show(findings)
    if any(each.verdict == "problem" for each in findings):
        raise click.exceptions.Exit(1)


def _show(findings: Sequence[Finding]) -> None:
    part = None
    for finding in findings:
        if finding.part != part:
            part = finding.part
            click.secho(part, bold=True)
        mark, colour = _MARKS[finding.verdict]
        name = finding.name.partition(".")[2]
        click.echo(f"  {click.style(mark, fg=colour)} {name:<{_NAME}} ", nl=False)
        for number, line in enumerate(_lines(finding.what)):
            click.echo(f"{'' if number == 0 else ' ' * (_NAME + 5)}{line}")
        if finding.mend is not None:
            # Not wrapped: it is there to be copied.
            click.secho(f"{' ' * (_NAME + 5)}→ {printable(finding.mend)}", fg="cyan")
    note(_summary(findings))


def _lines(text: str) -> Iterable[str]:
    clean = " ".join(printable(text).split())
    return textwrap.wrap(clean, max(40, terminal_width() - _NAME - 5), break_on_hyphens=False) or [""]


def _summary(findings: Sequence[Finding]) -> str:
    count = Counter(each.verdict for each in findings)
    if not count["problem"] and not count["warning"]:
        return "everything is in order"
    words = [
        f"{number} {noun}{'' if number == 1 else 's'}"
        for noun, number in (("problem", count["problem"]), ("warning", count["warning"]))
        if number
    ]
    return f"{' and '.join(words)}; lines with «→» say what to do"
