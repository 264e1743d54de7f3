"""Where a conversation goes after the model has spoken; shared by the graphs that call tools."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from langgraph.constants import END
from langgraph.types import Send

from graphs.nodes.tools import send_calls
from graphs.state import ConversationState
from graphs.turn import last_answer

MODEL: Final = "model"
TOOLS: Final = "tools"
RETRY: Final = "malformed call"
DONE: Final = "answer"

WAYS: Final[dict[Hashable, str]] = {"tool calls": TOOLS, RETRY: MODEL, DONE: END}
"""For ``add_conditional_edges``, as drawings name them."""


def after_answer(state: ConversationState) -> list[Send] | str:
    """One task per tool call, else another try if calls could not be read, else the end."""
    sends = send_calls(state, TOOLS)
    if sends:
        return sends
    answer = last_answer(state["messages"])
    return RETRY if answer is not None and answer.invalid_tool_calls else DONE
