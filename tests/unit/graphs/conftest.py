from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a graph on a thread, by ``invoke`` and by ``ainvoke``."""

    def invoke(graph: Any, messages: Any, *, thread: str = "t", **config: Any) -> dict[str, Any]:
        settings = {"configurable": {"thread_id": thread}, **config}
        given = (
            messages if messages is None or not isinstance(messages, (str, list)) else {"messages": messages}
        )
        if request.param == "sync":
            return graph.invoke(given, settings)
        return asyncio.run(graph.ainvoke(given, settings))

    return invoke
