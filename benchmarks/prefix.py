"""How much of each prompt vLLM's prefix cache serves, over a conversation with tools.

    python -m benchmarks.prefix [--turns 10]

Two agents hold the same conversation on the same engine: our react graph, and LangChain's ``create_agent``
whose system prompt begins with the time, as the usual agent template has it. Whatever stands before the
conversation and changes, even by a second, makes every earlier block of it new to the engine.

What could come from the cache is what the previous request of the same kind (one that led to a tool call, or
one that led to an answer) held and what the model made of it, in whole blocks. What did is the engine's own
count, ``input_token_details.cache_read`` in the messages' usage metadata. A share may exceed 100 %: requests
of different kinds have a beginning in common too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from agent import ChatVLLM
from graphs import build_react_graph
from tools import default_registry

BLOCK = 32
"""Tokens in a block of the cache, as the engine on CPUs has it."""


@dataclass(frozen=True)
class Usage:
    """Tokens of the cache, summed over a conversation."""

    could: int
    read: int

    @property
    def share(self) -> float:
        """What came from the cache of what could."""
        return self.read / self.could if self.could else 0.0


def cache_usage(messages: Sequence[BaseMessage]) -> Usage:
    """Count over the answers of a conversation; the first of each kind has nothing before it."""
    before: dict[bool, int] = {}
    could = read = 0
    for message in messages:
        if not isinstance(message, AIMessage) or message.usage_metadata is None:
            continue
        usage, kind = message.usage_metadata, bool(message.tool_calls)
        if kind in before:
            # The last token of a prompt is always computed: the answer begins with it.
            could += min(before[kind], usage["input_tokens"] - 1) // BLOCK * BLOCK
            read += (usage.get("input_token_details") or {}).get("cache_read", 0)
        before[kind] = usage["input_tokens"] + usage["output_tokens"]
    return Usage(could, read)


def converse(graph: Any, questions: Iterable[str], *, thread: str) -> list[BaseMessage]:
    """Ask one question after the other and return the whole conversation."""
    state: dict[str, Any] = {}
    for question in questions:
        state = graph.invoke({"messages": [("user", question)]}, {"configurable": {"thread_id": thread}})
    return list(state["messages"])


def questions(turns: int, *, start: int) -> list[str]:
    """Questions that need a calculator, none of them twice."""
    return [f"What is {start + turn} * {7 + turn}?" for turn in range(turns)]


def peer(model: ChatVLLM, tools: Sequence[Any]) -> Any:
    """LangChain's agent with the time in its system prompt."""
    from langchain.agents import create_agent
    from langchain.agents.middleware import dynamic_prompt

    @dynamic_prompt
    def clock(request: Any) -> str:
        return f"You are a helpful AI assistant.\n\nSystem time: {datetime.now(tz=UTC).isoformat()}"

    return create_agent(model, list(tools), middleware=[clock], checkpointer=InMemorySaver())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    turns = parser.parse_args().turns
    tools = [tool for tool in default_registry() if tool.name in ("calculator", "current_time")]
    with ChatVLLM(temperature=0.0, max_tokens=64) as model:
        ours = build_react_graph(model=model, tools=tools, checkpointer=InMemorySaver())
        rows = [
            ("build_react_graph", converse(ours, questions(turns, start=13), thread="ours")),
            (
                "create_agent, time first",
                converse(peer(model, tools), questions(turns, start=41), thread="peer"),
            ),
        ]
    print(f"{turns} turns, blocks of {BLOCK} tokens")
    print(f"{'':26}{'could':>8}{'did':>8}{'share':>8}")
    for name, messages in rows:
        usage = cache_usage(messages)
        print(f"{name:26}{usage.could:>8}{usage.read:>8}{usage.share:>8.0%}")


if __name__ == "__main__":
    main()
