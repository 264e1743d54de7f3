"""Content as data: an engine for whose model no text in a conversation is a control token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache

from agent.engines.base import Engine, EngineInfo, Explained, ExplainingEngine, Request, Response
from agent.errors import RequestError
from agent.formats.around import EngineAround
from agent.protocols.control import ControlText


class ContentAsData(EngineAround):
    """Breaks the model's control texts in each conversation before the engine is given it.

    It stands below the text protocol and the native one alike, so that one mechanism serves both. Texts to
    continue (:meth:`complete`) are left alone: a caller who writes a whole prompt writes its control tokens
    as well.

    Args:
        engine: The engine of the model.
        info: What is known of it.
    """

    def __init__(self, engine: Engine, info: EngineInfo) -> None:
        super().__init__(engine)
        self._control = _control_text(tuple(info.control_tokens), info.chat_template)

    async def chat(self, request: Request) -> Response:
        """Answer one request whole; see :class:`agent.engines.base.Engine`."""
        return await self._engine.chat(self._control.plain_request(request))

    def stream_chat(self, request: Request) -> AsyncIterator[Response]:
        """Answer one request in chunks; see :class:`agent.engines.base.Engine`."""
        return self._engine.stream_chat(self._control.plain_request(request))

    async def render(self, request: Request) -> list[int]:
        """Return the token ids of the prompt; see :class:`agent.engines.base.Engine`."""
        return await self._engine.render(
            request if "prompt" in request else self._control.plain_request(request)
        )

    async def explain(self, request: Request) -> Explained:
        """Return what would be given to the model; see :class:`agent.engines.base.ExplainingEngine`."""
        if not isinstance(self._engine, ExplainingEngine):
            msg = f"{type(self._engine).__name__} has no prompts to explain"
            raise RequestError(msg)
        return await self._engine.explain(self._control.plain_request(request))


@lru_cache(maxsize=8)
def _control_text(tokens: tuple[str, ...], chat_template: str | None) -> ControlText:
    """Made once per model and not for each call: a tokenizer may have a thousand such texts.

    Nothing in it changes, and another model has another key; more than a few at once are rare.
    """
    return ControlText(tokens, chat_template)
