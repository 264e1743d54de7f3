"""What a person fills in about a waiting tool call, and the decision that it means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from graphs.decisions import Approve, Decision, Edit, Reject, Respond

if TYPE_CHECKING:
    from graphs.decisions import WaitingCall

Kind = Literal["approve", "edit", "reject", "respond"]

KINDS: Mapping[Kind, str] = {
    "approve": "Approve",
    "edit": "Edit",
    "reject": "Reject",
    "respond": "Respond",
}
"""The four decisions, and what they are called."""

KINDS_AFTER_CRASH: Mapping[Kind, str] = {
    "approve": "Run again",
    "edit": "Run with other arguments",
    "reject": "Give up",
    "respond": "Say what it came to",
}
"""The same where the call was under way when a process died."""


class DraftError(ValueError):
    """What was filled in is no decision yet; the message stands beside the field."""


@dataclass
class Draft:
    """The form of one call."""

    call: WaitingCall
    """What waits."""

    kind: Kind | None = None
    """What was chosen; ``None`` before anything was."""

    arguments: str = ""
    """For :class:`Edit`: all arguments, as JSON."""

    reason: str = ""
    """For :class:`Reject`; may be empty."""

    text: str = ""
    """For :class:`Respond`: the result in the tool's place."""

    def __post_init__(self) -> None:
        self.arguments = self.arguments or json.dumps(self.call["args"], ensure_ascii=False, indent=2)

    @property
    def kinds(self) -> Mapping[Kind, str]:
        """What may be chosen."""
        return KINDS_AFTER_CRASH if self.call.get("warning") else KINDS

    def decision(self) -> Decision | None:
        """What was decided; ``None`` if nothing was chosen.

        Raises:
            DraftError: A field that the choice needs is wrong.
        """
        match self.kind:
            case "approve":
                return Approve()
            case "edit":
                return Edit(read_arguments(self.arguments))
            case "reject":
                return Reject(self.reason.strip())
            case "respond":
                if not self.text.strip():
                    raise DraftError("Write the result that the model is given.")
                return Respond(self.text)
        return None


def read_arguments(text: str) -> dict[str, Any]:
    """The arguments of a call from JSON that a person typed.

    Raises:
        DraftError: It is no JSON object; says where it goes wrong.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DraftError(f"Not JSON: {error.msg}, line {error.lineno}, column {error.colno}.") from error
    except (ValueError, RecursionError) as error:
        raise DraftError(f"Not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise DraftError('The arguments are one JSON object: {"name": value, …}.')
    return value
