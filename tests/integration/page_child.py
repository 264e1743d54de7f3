"""``vllm-agent ui`` around a scripted model that answers word by word, at a pace that can be seen."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import agent.app
from agent import ChatVLLM
from agent.cli.main import main
from agent.engines import Reply, ScriptedEngine

PACE = 0.03
"""Seconds between two words."""
LONG = "Here is a **long** answer. " + " ".join(f"word{number}" for number in range(1, 41))
ENDLESS = " ".join(f"word{number}" for number in range(1, 10_001))
"""Five minutes at that pace: it is stopped long before its end, however late somebody comes to it."""


def answer(request: dict[str, Any]) -> Reply:
    """What the model says, decided by the last message alone."""
    last = request["messages"][-1]
    text = str(last["content"])
    if last["role"] == "tool":
        return Reply(f"The tool says: {text[:60]}")
    if "two calls" in text:
        return Reply(tool_calls=[call("15 * 23"), call("2 + 2")])
    if "slowly" in text:
        return Reply(tool_calls=[{"name": "nap", "arguments": {"seconds": 1.2}}])
    if "broken" in text:
        return Reply(tool_calls=[call("1 / 0")])
    if "long" in text:
        return Reply(LONG)
    if "endless" in text:
        return Reply(ENDLESS)
    if "markdown" in text:
        return Reply(
            "![x](http://example.invalid/leak.png)\n\n"
            "<script>document.title = 'owned'</script>\n\n- one\n- two"
        )
    if "15" in text:
        return Reply(tool_calls=[call("15 * 23")])
    return Reply(f"You said {len(request['messages'])} things with me.")


def call(expression: str) -> dict[str, Any]:
    return {"name": "calculator", "arguments": {"expression": expression}}


class Paced(ScriptedEngine):
    """Streams no faster than a person could follow."""

    async def stream_chat(self, request: Any) -> AsyncIterator[Any]:
        async for chunk in super().stream_chat(request):
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                await asyncio.sleep(PACE)
            yield chunk


if __name__ == "__main__":
    engine = Paced([answer], repeat=True)
    agent.app.build_model = lambda settings, **_: ChatVLLM(engine=engine)  # type: ignore[assignment]
    sys.argv = ["vllm-agent", *json.loads(sys.argv[1])]
    main()
