"""How long a turn may go on, as one frozen record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import BaseMessage

from graphs.events import StopReason
from graphs.turn import current_turn, malformed_streak, model_calls, repeats

_STEPS_FOR_ANOTHER_ROUND = 3
"""Supersteps that must remain at a model call that may call tools: this one is running, then come the tools
and one last answer, and LangGraph refuses to end on the very last step."""


@dataclass(frozen=True, kw_only=True)
class TurnLimits:
    """Limits of one turn, that is of everything that answers one message of the user.

    Whichever limit is met first, the model gets one more call, without tools, to answer with what it has.

    Raises:
        ValueError: A limit is out of range.
    """

    max_steps: int = 10
    """Model calls that may use tools."""

    max_repeats: int = 2
    """How often a round of tool calls may be repeated with the same arguments and the same results. Small
    models loop; asking them once more for the same thing does not help."""

    max_malformed: int = 2
    """Retries in a row after answers in which no tool call could be read."""

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps!r}: must be 1 or more")
        if self.max_repeats < 1:
            raise ValueError(f"max_repeats={self.max_repeats!r}: must be 1 or more")
        if self.max_malformed < 0:
            raise ValueError(f"max_malformed={self.max_malformed!r}: must be 0 or more")

    def reached(
        self, messages: Sequence[BaseMessage], *, remaining_steps: int | None = None
    ) -> StopReason | None:
        """Which limit the current turn has met, if any.

        Args:
            messages: The conversation so far.
            remaining_steps: LangGraph's count of supersteps left, the running one included.
        """
        turn = current_turn(messages)
        if model_calls(turn) >= self.max_steps:
            return "max_steps"
        if malformed_streak(turn) > self.max_malformed:
            return "malformed_calls"
        if repeats(turn) >= self.max_repeats:
            return "repeated_calls"
        if remaining_steps is not None and remaining_steps < _STEPS_FOR_ANOTHER_ROUND:
            return "recursion_limit"
        return None
