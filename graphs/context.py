"""What the model is sent: the conversation, well formed, and no longer than its context.

The state keeps everything; only the request is cut. Three rules hold for every cut. A tool call and its
results stay together or go together, because templates and servers refuse one without the other. What
remains starts with a message of the user, because several templates insist on it. And whole blocks are
dropped at once, so that the start of the request stays the same over several turns and the engine's prefix
cache keeps serving it; cutting a little at every turn would cost all of it each time.
"""

from __future__ import annotations

import json
import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from langchain_core.language_models import BaseChatModel, BaseLanguageModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from graphs.turn import calls_of, current_turn, in_order, is_answer

logger = logging.getLogger(__name__)

Counter = Callable[[Sequence[BaseMessage]], int]

_BLOCK = 1 / 3
"""Share of the budget that is dropped at once."""

_RESULT_SHARES = (1 / 4, 1 / 10, 1 / 30)
"""Largest share of the budget that one tool result of the current turn may take, tried in this order."""

_BYTES_PER_TOKEN = 3
"""Low on purpose: code and numbers take more tokens than prose, and guessing high only trims early."""

_OVERHEAD_PER_MESSAGE = 32
_OVERHEAD_FOR_TOOLS = 1024


@dataclass(frozen=True)
class FittedContext:
    """A request that fits."""

    messages: list[BaseMessage]
    """What to send."""

    dropped: int = 0
    """Messages left out."""

    shortened: int = 0
    """Tool results cut in the middle."""


def with_system_prompt(messages: Sequence[BaseMessage], prompt: str | None) -> list[BaseMessage]:
    """Put ``prompt`` first, in one message with the system messages that the conversation starts with.

    One message, because most templates take a system message in the first place only.
    """
    if not prompt:
        return list(messages)
    texts = [prompt]
    rest = list(messages)
    while rest and isinstance(rest[0], SystemMessage):
        texts.append(rest.pop(0).text)
    return [SystemMessage(content="\n\n".join(texts)), *rest]


def well_formed(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Each answer followed by the results of its calls; results without their call are left out."""
    if in_order(messages):
        return list(messages)
    results: dict[str, ToolMessage] = {}
    for message in messages:
        if message.type == "tool":
            result = cast("ToolMessage", message)
            results.setdefault(result.tool_call_id, result)
    ordered: list[BaseMessage] = []
    for message in messages:
        kind = message.type
        if kind == "tool":
            continue
        ordered.append(message)
        if kind == "ai":
            for call in calls_of(cast("AIMessage", message)):
                if found := results.pop(call["id"] or "", None):
                    ordered.append(found)
    return ordered


def token_budget(model: BaseChatModel, max_context_tokens: int | None) -> int | None:
    """Tokens a request may take: the argument, else what the model says of itself, else no limit.

    A model says it in its profile. One on a server knows it only once it has asked there, which ``ChatVLLM``
    does in ``max_input_tokens()``; so no event loop should wait for this.
    """
    if max_context_tokens is not None:
        return max_context_tokens
    limit = (getattr(model, "profile", None) or {}).get("max_input_tokens")
    if limit is None and callable(ask := getattr(model, "max_input_tokens", None)):
        limit = ask()
    return int(limit) if limit else None


def fit_context(
    messages: Sequence[BaseMessage],
    *,
    model: BaseChatModel,
    budget: int | None,
    tools: Sequence[BaseTool] = (),
) -> FittedContext:
    """Cut ``messages`` to ``budget`` tokens.

    Old turns go first, then the results of tools in the current turn are shortened, then the oldest rounds
    of the current turn go. The system message, the user's last message and the latest round always stay; if
    these alone are too long the request is sent as it is and the engine says so.

    Args:
        messages: A well-formed conversation.
        model: Counts the tokens if it knows how; else they are estimated from bytes.
        budget: Tokens for messages and tools together, ``None`` for no limit.
        tools: The tools that are sent along.
    """
    if budget is None or _surely_fits(messages, budget, tools):
        return FittedContext(list(messages))
    count = _counter(model, tools, budget)
    if count(messages) <= budget:
        return FittedContext(list(messages))
    head, turns = _split(messages)
    turns = _drop_turns(head, turns, budget, count)
    current, shortened = _shrink_turn(head, turns, budget, count)
    kept = [*head, *current]
    return FittedContext(kept, dropped=len(messages) - len(kept), shortened=shortened)


def fits(messages: Sequence[BaseMessage], *, model: BaseChatModel, budget: int) -> bool:
    """Whether a request without tools keeps within ``budget`` tokens."""
    return _surely_fits(messages, budget, ()) or _counter(model, (), budget)(messages) <= budget


def side_by_side(texts: Sequence[str], budget: int | None) -> list[str]:
    """Texts that stand in a request together, the longest cut so that they take half of ``budget`` at most.

    They are a part of the last message, of which :func:`fit_context` leaves nothing out.
    """
    if budget is None:
        return list(texts)
    room, left = budget * _BYTES_PER_TOKEN // 2, len(texts)
    sizes = {}
    for place in sorted(range(len(texts)), key=lambda place: _length(texts[place])):
        sizes[place] = min(_length(texts[place]), room // left)  # what short ones leave is for the longer
        room, left = room - sizes[place], left - 1
    return [_begin_of(text, sizes[place]) for place, text in enumerate(texts)]


def _begin_of(text: str, size: int) -> str:
    if _length(text) <= size:
        return text
    return text.encode(errors="replace")[:size].decode(errors="ignore") + " […]"


def too_much(
    messages: Sequence[BaseMessage],
    *,
    model: BaseChatModel,
    budget: int | None,
    tools: Sequence[BaseTool] = (),
) -> list[BaseMessage]:
    """The oldest whole turns that :func:`fit_context` would drop; none if everything fits."""
    if budget is None or _surely_fits(messages, budget, tools):
        return []
    count = _counter(model, tools, budget)
    if count(messages) <= budget:
        return []
    head, turns = _split(messages)
    kept = _drop_turns(head, turns, budget, count)
    return _joined([], turns[: len(turns) - len(kept)])


def _split(messages: Sequence[BaseMessage]) -> tuple[list[BaseMessage], list[list[BaseMessage]]]:
    """The leading system messages, and the turns, each with the user's message that opens it."""
    head: list[BaseMessage] = []
    turns: list[list[BaseMessage]] = []
    for message in messages:
        if not turns and isinstance(message, SystemMessage):
            head.append(message)
        elif not turns or (isinstance(message, HumanMessage) and not _only_users(turns[-1])):
            turns.append([message])
        else:
            turns[-1].append(message)
    return head, turns


def _only_users(turn: Sequence[BaseMessage]) -> bool:
    return all(isinstance(message, HumanMessage) for message in turn)


def _drop_turns(
    head: list[BaseMessage], turns: list[list[BaseMessage]], budget: int, count: Counter
) -> list[list[BaseMessage]]:
    total = count(_joined(head, turns))
    block = max(1, int(budget * _BLOCK))
    target = math.ceil((total - budget) / block) * block

    def suffices(dropped: int) -> bool:
        return total - count(_joined(head, turns[dropped:])) >= target

    # Halving, as a count may be a whole tokenization: the latest turn is kept whether it suffices or not.
    return turns[bisect_left(range(len(turns) - 1), True, key=suffices) :]


def _joined(head: list[BaseMessage], groups: Sequence[list[BaseMessage]]) -> list[BaseMessage]:
    return [*head, *(message for group in groups for message in group)]


def _shrink_turn(
    head: list[BaseMessage], turns: list[list[BaseMessage]], budget: int, count: Counter
) -> tuple[list[BaseMessage], int]:
    whole = _joined([], turns)
    kept, shortened = whole, 0
    for share in _RESULT_SHARES:
        if count([*head, *kept]) <= budget:
            return kept, shortened
        kept, shortened = _shorten_results(whole, max(200, int(budget * share * _BYTES_PER_TOKEN)))
    groups = _rounds(kept)
    while count(_joined(head, groups)) > budget:
        oldest = next((i for i, group in enumerate(groups[:-1]) if isinstance(group[0], AIMessage)), None)
        if oldest is None:
            break
        del groups[oldest]
    return _joined([], groups), shortened


def _rounds(messages: Sequence[BaseMessage]) -> list[list[BaseMessage]]:
    """Groups that stay together: an answer with its results; any other message alone."""
    groups: list[list[BaseMessage]] = []
    for message in messages:
        if isinstance(message, ToolMessage) and groups:
            groups[-1].append(message)
        else:
            groups.append([message])
    return groups


def _shorten_results(messages: Sequence[BaseMessage], limit: int) -> tuple[list[BaseMessage], int]:
    shortened = 0
    kept: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage) and len(message.text) > limit:
            text = message.text
            half = limit // 2
            note = f"\n[… {len(text) - 2 * half} characters left out …]\n"
            kept.append(message.model_copy(update={"content": text[:half] + note + text[-half:]}))
            shortened += 1
        else:
            kept.append(message)
    return kept, shortened


def _surely_fits(messages: Sequence[BaseMessage], budget: int, tools: Sequence[BaseTool]) -> bool:
    """Whether the request fits even if every byte were a token, so that nothing need be counted."""
    size = sum(_bytes(message) + _OVERHEAD_PER_MESSAGE for message in messages)
    if tools and size <= budget:
        size += _OVERHEAD_FOR_TOOLS + _tool_bytes(tools)
    return size <= budget


def _bytes(message: BaseMessage) -> int:
    size = _length(message.content if isinstance(message.content, str) else str(message.content))
    if is_answer(message):
        size += _length(_reasoning(message))
        if calls := calls_of(message):
            size += _length(str(calls))
    return size


def _reasoning(message: BaseMessage) -> str:
    """What the model thought, which templates show to it again in the same turn."""
    text = message.additional_kwargs.get("reasoning_content")
    return text if isinstance(text, str) else ""


def _length(text: str) -> int:
    # The first is known without looking; half of a surrogate pair has no bytes of its own.
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _counter(model: BaseChatModel, tools: Sequence[BaseTool], budget: int) -> Counter:
    """How to count tokens: as the model does, or estimated from bytes if it has no tokenizer of its own.

    LangChain's default would fetch GPT-2's tokenizer from the network, and ignores the tools.
    """
    kind = type(model)
    for_tools = math.ceil(_tool_bytes(tools) / _BYTES_PER_TOKEN)
    if kind.get_num_tokens_from_messages is not BaseLanguageModel.get_num_tokens_from_messages:

        def count(messages: Sequence[BaseMessage]) -> int:
            try:
                return model.get_num_tokens_from_messages(list(messages), tools=list(tools) or None)
            except Exception as error:  # of whatever library the model comes from
                # An engine may refuse to count what it would refuse to run: the very case in which the
                # count is needed. Anything else that is wrong shows when the model is asked.
                logger.info("the tokens are estimated, because they cannot be counted: %s", error)
                return max(_estimate(messages) + for_tools, budget + 1)

        return count
    if model.custom_get_token_ids is not None or kind.get_token_ids is not BaseLanguageModel.get_token_ids:
        return lambda messages: model.get_num_tokens_from_messages(list(messages)) + for_tools
    return lambda messages: _estimate(messages) + for_tools


def _estimate(messages: Sequence[BaseMessage]) -> int:
    # The library counts characters; beyond ASCII, one of them is more than its share of a token.
    wide = sum(_length(message.text) - len(message.text) for message in messages)
    tokens = count_tokens_approximately(messages, chars_per_token=_BYTES_PER_TOKEN)
    thought = sum(_length(_reasoning(message)) for message in current_turn(messages))
    return tokens + (wide + thought) // _BYTES_PER_TOKEN


def _tool_bytes(tools: Sequence[BaseTool]) -> int:
    return sum(len(json.dumps(convert_to_openai_tool(tool)).encode()) for tool in tools)
