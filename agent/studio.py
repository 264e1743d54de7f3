"""What ``langgraph.json`` names: a factory for each graph, and the database of conversations.

LangGraph Studio, and whatever else speaks to ``langgraph dev``, then runs the same graphs on the same
conversations as the command line, with the same settings. Settings come from ``VLLM_AGENT_…`` variables and
``config.toml``.

The server calls a factory for every request, also to draw a graph. So everything is built once, in a thread
(the server refuses calls that block its loop), and the model is not loaded before it is first asked.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from agent.app import build_graph, build_model, build_tools, open_observer, open_saver, recursion_limit
from agent.settings import load_settings

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from agent.app import Graph
    from agent.chat.model import ChatVLLM
    from agent.persistence.saver import SQLSaver
    from agent.settings import Settings
    from agent.telemetry import RunObserver

    Factory: TypeAlias = Callable[[], Awaitable[Graph]]


class _Workshop:
    """Builds each graph once, all of them around one model; safe from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: tuple[Settings, ChatVLLM, list[BaseTool], RunObserver | None] | None = None
        self._graphs: dict[str, Graph] = {}

    def graph(self, name: str) -> Graph:
        """The graph of this name, without a checkpointer: the server gives it one for each run."""
        with self._lock:
            if name not in self._graphs:
                settings, model, tools, observer = self._materials()
                built = build_graph(replace(settings, graph=name), model=model, tools=tools)
                self._graphs[name] = built.with_config(
                    {
                        "recursion_limit": recursion_limit(settings),
                        "callbacks": [observer] if observer is not None else [],
                    }
                )
            return self._graphs[name]

    def observer(self) -> RunObserver | None:
        """What watches the runs of all graphs."""
        with self._lock:
            return self._materials()[-1]

    def _materials(self) -> tuple[Settings, ChatVLLM, list[BaseTool], RunObserver | None]:
        if self._parts is None:
            settings = load_settings()
            until_the_end = ExitStack()
            observer = until_the_end.enter_context(open_observer(settings))
            atexit.register(until_the_end.close)
            self._parts = settings, build_model(settings), build_tools(settings), observer
        return self._parts


_WORKSHOP = _Workshop()


def _factory(name: str) -> Factory:
    async def build() -> Graph:
        return await asyncio.to_thread(_WORKSHOP.graph, name)

    build.__name__ = name
    build.__doc__ = f"The graph called {name!r}."
    return build


react = _factory("react")
approval = _factory("approval")
plan_execute = _factory("plan_execute")
retrieval = _factory("retrieval")
supervisor = _factory("supervisor")


@asynccontextmanager
async def checkpointer() -> AsyncIterator[SQLSaver]:
    """The conversations of the command line, for as long as the server runs."""
    settings = await asyncio.to_thread(load_settings)
    observer = await asyncio.to_thread(_WORKSHOP.observer)
    async with open_saver(settings) as saver:
        saver.observer = observer.checkpoint_write if observer is not None else None
        yield saver
