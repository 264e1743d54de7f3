"""A checkpoint in one line, as the history lists it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from agent.persistence import Moment

_SPEAKERS = {"human": "You", "ai": "Model", "tool": "Tool", "system": "System"}
_LENGTH = 60


def moment_line(moment: Moment) -> str:
    """What had just been said at a checkpoint."""
    if moment.source == "fork":
        return "Forked"
    if moment.last is None:
        return "Begin"
    return f"{_SPEAKERS.get(moment.last.type, moment.last.type)}: {_brief(moment.last)}"


def _brief(message: BaseMessage) -> str:
    text = " ".join(message.text.split())
    calls = [call["name"] for call in getattr(message, "tool_calls", ())]
    shown = text or (f"calls {', '.join(calls)}" if calls else "(nothing)")
    return shown if len(shown) <= _LENGTH else f"{shown[: _LENGTH - 1].rstrip()}…"
