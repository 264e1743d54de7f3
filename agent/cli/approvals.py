"""Decisions about tool calls, from a person at a terminal or from flags."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from agent.cli.console import columns, note, printable, warn
from agent.cli.debugging import read_by_programs
from agent.cli.view import call_line
from agent.errors import ConfigurationError

if TYPE_CHECKING:
    from graphs.decisions import Decision, WaitingCall

_ALL = "all"
_QUESTION = "  run it? [y]es, [n]o, [e]dit the arguments, [r]espond in its place: "
_QUESTION_AGAIN = "  run it again? [y]es, [n]o, give it up, [r]espond with what it came to: "
_KINDS = ("approve", "reject", "edit", "respond")


def ask_decisions(
    calls: Sequence[WaitingCall], problems: Sequence[str], *, read: Callable[[str], str]
) -> dict[str, Decision] | None:
    """Ask a person about each call.

    Args:
        calls: What waits.
        problems: What was wrong with earlier decisions.
        read: Shows a prompt and returns what is typed.

    Returns:
        By call id; ``None`` if the person left without deciding about all of them.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    for problem in problems:
        warn(f"  ! {printable(problem)}")
    decisions: dict[str, Decision] = {}
    try:
        for call in calls:
            click.secho(f"{call_line(call['name'], call['args'])}", err=True, fg="cyan")
            if warning := call.get("warning"):
                warn(f"  ! {printable(warning)}")
            purpose = printable(call["description"]).strip().partition("\n")[0]
            if purpose:
                note(f"    {purpose}")
            decisions[call["id"]] = _ask(call, read)
    except EOFError:
        click.echo(err=True)
        return None
    return decisions


def _ask(call: WaitingCall, read: Callable[[str], str]) -> Decision:
    from graphs.decisions import Approve, Edit, Reject, Respond

    question = _QUESTION_AGAIN if call.get("warning") else _QUESTION
    while True:
        match read(question).strip().lower():
            case "y" | "yes":
                return Approve()
            case "n" | "no":
                return Reject(read("  why not? (the model is told; may be empty) ").strip())
            case "e" | "edit":
                note(f"    now: {json.dumps(call['args'], ensure_ascii=False)}")
                arguments = _json_object(read("  arguments as JSON: "))
                if arguments is not None:
                    return Edit(arguments)
                warn("  ! that is no JSON object")
            case "r" | "respond":
                return Respond(read("  the result: "))
            case _:
                warn("  ! please answer y, n, e or r")


def flagged_decisions(
    flags: Mapping[str, Sequence[str]], calls: Sequence[WaitingCall]
) -> dict[str, Decision]:
    """Decisions from the values of ``--approve``, ``--reject``, ``--edit`` and ``--respond``.

    Args:
        flags: By kind, the values as they were typed: ``ID``, ``ID=REASON``, ``ID=JSON``, ``ID=TEXT``.
        calls: What waits.

    Raises:
        click.UsageError: A value is wrong, or two of them are about one call.
        ConfigurationError: No such call waits.
    """
    decisions: dict[str, Decision] = {}
    for kind in _KINDS:
        for value in flags.get(kind, ()):
            given, _, rest = value.partition("=")
            for call_id in _matching(given, calls, many=kind in ("approve", "reject")):
                if call_id in decisions:
                    raise click.UsageError(f"There are two decisions about {call_id}.")
                decisions[call_id] = _decision(kind, rest, value)
    return decisions


def _decision(kind: str, rest: str, value: str) -> Decision:
    from graphs.decisions import Approve, Edit, Reject, Respond

    if kind == "approve":
        if rest:
            raise click.UsageError(f"--approve {value!r}: takes an id only; --edit takes ID=JSON.")
        return Approve()
    if kind == "reject":
        return Reject(rest)
    if kind == "respond":
        if not rest:
            raise click.UsageError(f"--respond {value!r}: must be ID=TEXT.")
        return Respond(rest)
    arguments = _json_object(rest)
    if arguments is None:
        raise click.UsageError(f"--edit {value!r}: must be ID=JSON, with all arguments as one JSON object.")
    return Edit(arguments)


def _matching(given: str, calls: Sequence[WaitingCall], *, many: bool) -> list[str]:
    ids = [call["id"] for call in calls]
    if given == _ALL and many:
        found = ids
    else:
        found = [given] if given in ids else [each for each in ids if given and each.startswith(given)]
        if len(found) > 1:
            raise click.UsageError(f"{given!r} is the beginning of several calls: {', '.join(found)}.")
    if not found:
        waiting = ", ".join(ids) or "none (a call of another graph waits for that one: give its --graph)"
        raise ConfigurationError(f"no call {given!r} waits for a decision; waiting: {waiting}")
    return found


def say_waiting(calls: Sequence[WaitingCall], hint: str) -> None:
    """Say what waits, and how to decide about it.

    Args:
        calls: What waits.
        hint: The command that goes on with the conversation, without decisions.
    """
    nothing = "" if any(call.get("warning") for call in calls) else ", nothing of this has run"
    warn(f"waiting for a decision{nothing}:")
    width = max(columns(call["id"]) for call in calls)
    for call in () if read_by_programs() else calls:
        click.echo(f"  {call['id']:<{width}}{call_line(call['name'], call['args'])}", err=True)
        if warning := call.get("warning"):
            warn(f"  ! {printable(warning)}")
    ways = "--approve ID | --reject ID=REASON | --edit ID=JSON | --respond ID=TEXT"
    note(f"decide: {hint} {ways}, or --approve all")


def waiting_records(calls: Sequence[WaitingCall]) -> list[dict[str, Any]]:
    """What waits, as plain data for ``--json``."""
    return [
        {
            "id": call["id"],
            "name": call["name"],
            "arguments": call["args"],
            "description": call["description"],
            **({"warning": call["warning"]} if "warning" in call else {}),
        }
        for call in calls
    ]


def read_at_terminal(prompt: str) -> str:
    """Read a line from the terminal; the prompt goes to stderr, stdout is for data.

    Raises:
        EOFError: There is no more.
    """
    click.echo(prompt, err=True, nl=False)
    return input()


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
