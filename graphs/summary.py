"""Summarising what no longer fits: the oldest turns become a few sentences, and the state keeps them.

Trimming forgets the beginning of a long conversation; a summary keeps its gist, for the price of one more
call of the model each time the context is full. It is stored beside the messages and used for the requests
that follow, so that it is written once and the prompt's beginning stays the same until the next one.

A summary says up to which message it goes. In a fork, or after an edit, where that message is not there, it
is not used: it would tell of a conversation that never was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool
from typing_extensions import TypedDict

from graphs import prompts
from graphs.context import fits, too_much

_CHARACTERS_PER_TOKEN = (4, 2, 1, 1 / 2)
"""How much text is shown per token of the budget, tried in this order until it fits with its instruction."""


class Summary(TypedDict):
    """The beginning of a conversation in a few sentences."""

    text: str
    through: str
    """The id of the last message that it covers."""


@dataclass(frozen=True)
class SummaryRequest:
    """A summary that has to be written before the conversation fits."""

    messages: list[BaseMessage]
    """What to ask the model."""

    through: str
    """The id of the last message that the summary will cover."""

    covered: int
    """How many messages go into it."""


def with_summary(messages: Sequence[BaseMessage], summary: Summary | None) -> list[BaseMessage]:
    """A conversation with its beginning replaced by ``summary``, if that belongs to it.

    The summary is a system message at the start: a message of the user or the model would pretend that
    somebody said it.
    """
    covered = _covered(messages, summary)
    if summary is None or not covered:
        return list(messages)
    texts = [message.text for message in messages[:covered] if isinstance(message, SystemMessage)]
    head = "\n\n".join([*texts, prompts.summary_so_far(summary["text"])])  # templates take one of them
    return [SystemMessage(head), *messages[covered:]]


def summary_request(
    messages: Sequence[BaseMessage],
    summary: Summary | None,
    *,
    model: BaseChatModel,
    budget: int | None,
    tools: Sequence[BaseTool] = (),
) -> SummaryRequest | None:
    """What to summarise so that the conversation fits; ``None`` if it fits, or no whole turn can go.

    Args:
        messages: The conversation, well formed.
        summary: The latest summary, which the new one takes in.
        model: Counts the tokens.
        budget: Tokens for messages and tools together, ``None`` for no limit.
        tools: The tools that are sent along.
    """
    covered = _covered(messages, summary)
    known = summary["text"] if summary and covered else ""
    rest = [*with_summary(messages, summary)]
    dropped = too_much(rest, model=model, budget=budget, tools=tools)
    if not dropped or budget is None:
        return None
    last = dropped[-1].id
    if not last:
        return None
    for share in _CHARACTERS_PER_TOKEN:
        text = transcript(dropped, limit=int(budget * share))
        request: list[BaseMessage] = [HumanMessage(prompts.summarise(known, text))]
        if fits(request, model=model, budget=budget):
            return SummaryRequest(request, last, len(dropped))
    return None


def transcript(messages: Sequence[BaseMessage], *, limit: int) -> str:
    """Messages as text of about ``limit`` characters at most: each is shortened, then the whole."""
    share = max(40, limit // max(1, len(messages)))
    lines = [f"{_speaker(message)}: {_short(_said(message), share)}" for message in messages]
    return _short("\n".join(lines), limit)


def _covered(messages: Sequence[BaseMessage], summary: Summary | None) -> int:
    if summary is None:
        return 0
    ids = [message.id for message in messages]
    return ids.index(summary["through"]) + 1 if summary["through"] in ids else 0


def _speaker(message: BaseMessage) -> str:
    if isinstance(message, ToolMessage):
        return f"Result of {message.name or 'a tool'}"
    return {"human": "User", "ai": "Assistant"}.get(message.type, message.type)


def _said(message: BaseMessage) -> str:
    text = " ".join(message.text.split())
    if isinstance(message, AIMessage) and message.tool_calls:
        calls = ", ".join(f"{call['name']}({call['args']})" for call in message.tool_calls)
        return f"{text} (calls {calls})".strip()
    return text


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"
