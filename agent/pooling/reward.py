"""``VLLMRewardModel``: how good a text or a conversation is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages
from pydantic import PrivateAttr

from agent.chat.characters import whole
from agent.chat.requests import wire_messages
from agent.engines.loop import together
from agent.errors import ConfigurationError, RequestError, UnsupportedTaskError
from agent.pooling.results import Reward
from agent.pooling.runnable import PoolingRunnable
from agent.protocols.control import ControlText

_TOKENS = "token_classify"


class VLLMRewardModel(PoolingRunnable[Reward]):
    """Judges texts: a runnable from a text, or a conversation, to a :class:`~agent.pooling.Reward`.

    A conversation is a list of messages, put together by the model's own chat template. Models that judge
    the whole, each token, or each step (process rewards) are taken alike.

    Example:
        .. code-block:: python

            from agent import VLLMRewardModel

            with VLLMRewardModel(model="Skywork/Skywork-Reward-V2-Qwen3-0.6B") as judge:
                print(judge.invoke([("user", "What is 2 + 2?"), ("assistant", "4")]).score)

    Raises:
        ConfigurationError: An argument is out of range or contradicts another.
        ModelNotFoundError: ``model`` is neither a model directory nor a possible hub id.

    Calls raise :class:`~agent.errors.UnsupportedTaskError` where the model gives no rewards, and
    :class:`~agent.errors.RequestError` where an input is too long.
    """

    _by_token: bool | None = PrivateAttr(default=None)

    async def _answers(self, inputs: Sequence[Any]) -> list[Reward]:
        if all(isinstance(each, str) for each in inputs):
            return await self._batched(inputs, self._texts)
        places = asyncio.Semaphore(self.batch_size)

        async def one(number: int, given: Any) -> Reward:
            async with places:
                if isinstance(given, str):
                    return (await self._texts([whole(given)], number))[0]
                return (await self._rewards({"messages": await self._messages(given)}, (), number))[0]

        return await together([one(number, given) for number, given in enumerate(inputs)])

    async def _texts(self, texts: Sequence[str], first: int) -> list[Reward]:
        return await self._rewards({"input": list(texts)}, texts, first)

    async def _messages(self, given: Any) -> list[dict[str, Any]]:
        try:
            messages: list[BaseMessage] = convert_to_messages(given)
        except Exception as error:  # LangChain raises many kinds over what is no message
            raise ConfigurationError(
                f"a reward is for a text or a list of messages, not {given!r:.100}"
            ) from error
        _, info = await self._started()
        control = ControlText(info.control_tokens, info.chat_template)
        return list(control.plain_request({"messages": wire_messages(messages)})["messages"])

    async def _rewards(self, request: dict[str, Any], texts: Sequence[str], first: int) -> list[Reward]:
        """Ask the route for whole texts, or the one for tokens where the model has no other."""
        body = {**request, "use_activation": False}
        if not self._by_token:
            try:
                items = await self._items("classify", body, texts, first)
            except UnsupportedTaskError:
                if self._by_token is False:
                    raise
            else:
                self._by_token = False
                return [_reward([item["probs"]]) for item in items]
        items = await self._items("pooling", {**body, "task": _TOKENS}, texts, first)
        self._by_token = True
        return [_reward([row if isinstance(row, list) else [row] for row in item["data"]]) for item in items]


def _reward(rows: Sequence[Sequence[float]]) -> Reward:
    """A record of what the model says of each token or step, or of the whole."""
    if not rows:
        raise RequestError("the text has no step for the model to judge: its step token does not occur in it")
    steps = tuple(_good(row) for row in rows)
    return Reward(steps[-1], steps)


def _good(row: Sequence[float]) -> float:
    """The reward itself, or the probability of «good» where the model tells it from «bad»."""
    if len(row) == 1:
        return row[0]
    if len(row) == 2:
        return 1 / (1 + math.exp(min(row[0] - row[1], 700.0)))
    raise UnsupportedTaskError(
        f"this model tells {len(row)} classes apart, and a reward is one number: use VLLMClassifier or "
        "VLLMTokenClassifier"
    )
