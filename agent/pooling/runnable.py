"""Pooling models that are runnables: one text in, one record out, and many texts in one go."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import get_config_list

from agent.pooling.model import PoolingModel

R = TypeVar("R")


class PoolingRunnable(PoolingModel, RunnableSerializable[Any, R], Generic[R]):
    """Answers each input with one record."""

    @abstractmethod
    async def _answers(self, inputs: Sequence[Any]) -> list[R]:
        """Answer inputs, on the engine's loop."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> R:
        """Answer one input."""
        return self._call_with_config(lambda one: self._run(self._answers([one]))[0], input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> R:
        """Answer one input."""

        async def call(one: Any) -> R:
            return (await self._arun(self._answers([one])))[0]

        return await self._acall_with_config(call, input, config)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **_: Any,
    ) -> list[R]:
        """Answer many inputs in as few requests as possible.

        With ``return_exceptions`` each is a request of its own, so that one bad input spoils no other.
        """
        if return_exceptions:
            return super().batch(inputs, config, return_exceptions=return_exceptions)
        if not inputs:
            return []
        get_config_list(config, len(inputs))  # refuses a list of another length
        return self._run(self._answers(inputs))

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **_: Any,
    ) -> list[R]:
        """Answer many inputs in as few requests as possible; see :meth:`batch`."""
        if return_exceptions:
            return await super().abatch(inputs, config, return_exceptions=return_exceptions)
        if not inputs:
            return []
        get_config_list(config, len(inputs))
        return await self._arun(self._answers(inputs))
