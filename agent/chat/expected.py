"""What an answer may hold, by its request: which calls it may make, and whether it must make one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from agent.chat.candidates import FoundCall
from agent.chat.recovery import Recovery, recover_from_reasoning


@dataclass(frozen=True)
class Expected:
    """What the answer to a request may hold."""

    tools: Sequence[Mapping[str, Any]] = ()
    """The tools that it may call, in wire form."""

    required: bool = False
    """Whether it has to call one."""

    most: int | None = None
    """How many calls it may make; None for any number."""

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Self:
        """Read it from a request in wire form."""
        tools, choice = request.get("tools") or (), request.get("tool_choice", "auto")
        if not tools or choice == "none":
            return cls()
        most = 1 if request.get("parallel_tool_calls") is False else None
        if isinstance(choice, Mapping):
            named = choice["function"]["name"]
            return cls(
                [tool for tool in tools if tool["function"]["name"] == named], required=True, most=most
            )
        return cls(tools, required=choice == "required", most=most)

    def recovery(self) -> Recovery:
        """Return what reads the text of one answer."""
        recovery = Recovery(self.tools)
        if not self.tools:
            recovery.release()
        return recovery

    def instead(self, *, content: str, reasoning: str, finish: str | None) -> list[FoundCall]:
        """Return the calls of an answer in whose text none were found.

        Args:
            content: All of its text.
            reasoning: All of its reasoning, whose last words count where there is no text.
            finish: Why it ended.
        """
        found: list[FoundCall] = []
        if self.tools and reasoning and not content.strip():
            found = recover_from_reasoning(reasoning, self.tools)
        if not found and self.tools and finish == "length" and not (content or reasoning):
            # Parsers keep a call that they have begun to read to themselves, and drop it when it is cut off.
            return [FoundCall(None, "", "the answer was cut off at its token limit before it could be read")]
        if not found and self.required:
            name = self.tools[0]["function"]["name"] if len(self.tools) == 1 else None
            problem = "tool_choice asks for a call, and the answer holds none"
            if finish == "length":
                problem = (
                    "the answer was cut off at its token limit before it held the call that was asked for"
                )
            return [FoundCall(name, "", problem)]
        return self.allowed(found)

    def allowed(self, calls: list[FoundCall]) -> list[FoundCall]:
        """Leave out calls beyond the number that was asked for, as vLLM does."""
        return calls[: self.most]
