"""How many tokens a text or a conversation has, by the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.tools import BaseTool

from agent.chat.calling import ChatCalls
from agent.chat.characters import whole
from agent.chat.requests import wire_messages, wire_tools
from agent.chat.tokens import tokenizer_on_disk


class ChatCounting(ChatCalls):
    """The counting of a chat model."""

    def get_num_tokens_from_messages(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Return the number of tokens of the prompt that these messages and tools make, exactly.

        The engine renders the prompt and does not run it. Starts the engine.
        """
        request: dict[str, Any] = {"messages": wire_messages(list(messages))}
        if tools:
            request["tools"] = wire_tools(tools)
        return len(self._session.loop.run(self._prompt(request)))

    def get_token_ids(self, text: str) -> list[int]:
        """Return the token ids of ``text`` by itself, by the model's own tokenizer.

        No engine is started where the tokenizer is a file on this machine. The prompt of a conversation has
        more tokens than its texts; :meth:`get_num_tokens_from_messages` counts those.
        """
        if not text:
            return []
        text = whole(text)
        if (name := self._model_on_disk()) is not None:
            tokenizer = tokenizer_on_disk(name, self.download_dir)
            if tokenizer is not None:
                return tokenizer.encode(text, add_special_tokens=False).ids
        return self._session.loop.run(self._prompt({"prompt": text, "add_special_tokens": False}))

    def _model_on_disk(self) -> str | None:
        """Return the model whose tokenizer may be on this machine; None for servers and given engines."""
        own_tokenizer = any(name.startswith("tokenizer") or name == "revision" for name in self.vllm_kwargs)
        if self.engine is not None or self.base_url is not None or own_tokenizer:
            return None
        if self.model is not None:
            return self.model
        from agent.catalogue.embedded import embedded_model

        return str(embedded_model())

    async def _prompt(self, request: dict[str, Any]) -> list[int]:
        engine, _, _ = await self._session.ready()
        return await engine.render(request)
