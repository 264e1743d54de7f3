"""Batches of a chat model: all of one at once, because the engine batches what runs side by side.

LangChain makes a batch of calls on a few threads, as many as suit the cores (6 on two of them): the engine
then works on 6 answers where it could work on all. How many run at once is the engine's to decide, which
queues the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig

from agent.chat.counting import ChatCounting

AT_ONCE = 128
"""Threads of a batch at most, each of which waits for its answer; ``max_concurrency`` of a config overrides
it."""

_Configs = RunnableConfig | Sequence[RunnableConfig] | None


class ChatBatches(ChatCounting):
    """The batches of a chat model; those of asynchronous code are made at once by LangChain too."""

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Answer all inputs, in their order; see LangChain's ``Runnable.batch``."""
        return super().batch(inputs, _side_by_side(config), **kwargs)

    def batch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """Answer all inputs, each as soon as it is done; see LangChain's ``Runnable.batch_as_completed``."""
        return super().batch_as_completed(inputs, _side_by_side(config), **kwargs)


def _side_by_side(config: _Configs) -> Any:
    if config is None or isinstance(config, dict):
        return _wide(config or {})
    return [_wide(one) for one in config]


def _wide(config: Any) -> Any:
    return {**config, "max_concurrency": config.get("max_concurrency") or AT_ONCE}
