"""A decision that a model makes in a fixed form: a plan, a grade, a better question.

The form is a Pydantic class, given to the model as the one tool that it must call. With ``ChatVLLM`` the call
is decoded under a grammar, so that it is well formed whatever the model's size; other models are asked again
when they do not keep to the form, and in the end a decision that does no harm is made in their place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.constants import TAG_NOSTREAM
from pydantic import BaseModel, ValidationError

logger = logging.getLogger(__name__)

Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Decision(Generic[Form]):
    """Asks a model to fill in a form."""

    model: BaseChatModel
    """Any LangChain chat model that can call tools."""

    form: type[Form]
    """What is decided; its docstring and descriptions are the model's instructions."""

    fallback: Callable[[], Form]
    """The decision if the model makes none."""

    attempts: int = 2
    """How often the model is asked."""

    def ask(self, messages: Sequence[BaseMessage], config: RunnableConfig) -> Form:
        """The model's decision, synchronously."""
        for _ in range(self.attempts):
            decided = self._read(self._runnable.invoke(list(messages), config))
            if decided is not None:
                return decided
        return self.fallback()

    async def aask(self, messages: Sequence[BaseMessage], config: RunnableConfig) -> Form:
        """The model's decision, asynchronously."""
        for _ in range(self.attempts):
            decided = self._read(await self._runnable.ainvoke(list(messages), config))
            if decided is not None:
                return decided
        return self.fallback()

    @cached_property
    def _runnable(self) -> Runnable[LanguageModelInput, AIMessage]:
        bound = self.model.bind_tools([self.form], tool_choice=self.form.__name__)
        # Half a form is nothing that a reader of the token stream wants to see.
        return bound.with_config(tags=[TAG_NOSTREAM])

    def _read(self, answer: AIMessage) -> Form | None:
        for call in answer.tool_calls:
            try:
                return self.form.model_validate(call["args"])
            except ValidationError as error:
                logger.info("%s: %s", self.form.__name__, error)
        return None
