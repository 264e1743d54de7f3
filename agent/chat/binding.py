"""A chat model with arguments bound to it, which keeps them whatever is bound next.

LangChain's own binding passes ``bind_tools`` and ``with_structured_output`` on to the model below, and what
was bound before is lost on the way: tools, a temperature, a stop text, without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBinding


class ChatBinding(RunnableBinding[LanguageModelInput, AIMessage]):
    """A :class:`agent.ChatVLLM` with arguments of its calls."""

    @classmethod
    def lc_id(cls) -> list[str]:
        """Be stored as LangChain's own binding, which is what a stored one is read as."""
        return RunnableBinding.lc_id()

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """Give the model tools, in the place of earlier ones; see :meth:`agent.ChatVLLM.bind_tools`."""
        kept = {name: value for name, value in self.kwargs.items() if name not in ("tools", "tool_choice")}
        bound = self.bound.bind_tools(tools, **{**kept, **kwargs})  # type: ignore[attr-defined]  # a ChatVLLM
        return self.model_copy(update={"kwargs": bound.kwargs})

    def with_structured_output(self, schema: Any = None, **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
        """Ask for a structured answer; see :meth:`agent.ChatVLLM.with_structured_output`."""
        result = self.bound.with_structured_output(schema, **{**self.kwargs, **kwargs})  # type: ignore[attr-defined]
        if not (self.config or self.config_factories):
            return result  # type: ignore[no-any-return]
        return RunnableBinding(bound=result, config=self.config, config_factories=self.config_factories)
