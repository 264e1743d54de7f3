"""What a server is: its model, and whether it calls tools by itself. Asked once, before the first call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from agent.catalogue.size import parameters_of
from agent.engines.base import EngineInfo
from agent.engines.remote.connection import CHAT, Connection, RefusedError
from agent.errors import ConfigurationError, ModelNotFoundError
from agent.protocols.control import WELL_KNOWN, control_tokens, looks_like_control

_MISSING = (404, 405)
_BUSY = (408, 429)
_MOST_NAMES = 10  # in one message
_PROBE_TOOL = {"type": "function", "function": {"name": "probe", "parameters": {"type": "object"}}}


async def discover(connection: Connection, wanted: str | None) -> tuple[EngineInfo, bool]:
    """Return what the server says of itself, and whether it is vLLM.

    Args:
        connection: To the server.
        wanted: The name of the model; None for the only one that it serves.

    Raises:
        ConnectionFailure: It cannot be asked.
        ModelNotFoundError: It does not serve that model.
        ConfigurationError: It serves several, and none was named.
    """
    card = _choose(await _cards(connection, wanted), wanted, connection.address)
    model, is_vllm = card["id"], card.get("owned_by") == "vllm"
    version: Mapping[str, Any] = {}
    tokenizer: Mapping[str, Any] = {}
    if is_vllm:
        version = await _optional(connection, "/version")
        tokenizer = await _optional(connection, "/tokenizer_info")  # shown where the server is told to
    template, limit = tokenizer.get("chat_template"), card.get("max_model_len")
    info = EngineInfo(
        kind="remote",
        model=model,
        max_model_len=limit if isinstance(limit, int) and limit > 0 else None,
        parameters=await asyncio.to_thread(parameters_of, _text(card.get("root")), model),
        chat_template=_text(template),
        control_tokens=_control_tokens(tokenizer) or await _told_by_tokens(connection, model, is_vllm),
        tool_parser="server" if not is_vllm or await _parses_tools(connection, model) else None,
        version=f"vLLM {version.get('version', '')}".strip() if is_vllm else connection.address,
    )
    return info, is_vllm


async def _cards(connection: Connection, wanted: str | None) -> list[dict[str, Any]]:
    try:
        listing = await connection.json("GET", "models")
    except RefusedError as error:
        if error.status not in _MISSING or wanted is None:
            raise
        return []  # some gateways have no list
    cards = listing.get("data") if isinstance(listing, dict) else None
    known = cards if isinstance(cards, list) else []
    return [card for card in known if isinstance(card, dict) and _text(card.get("id"))]


def _choose(cards: list[dict[str, Any]], wanted: str | None, address: str) -> dict[str, Any]:
    names = [card["id"] for card in cards]
    shown = ", ".join(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        shown += f" and {len(names) - _MOST_NAMES} more"
    if wanted is not None:
        if wanted in names:
            return cards[names.index(wanted)]
        if not cards:
            return {"id": wanted}
        msg = f"the server at {address} does not serve {wanted!r}; it serves: {shown}"
        raise ModelNotFoundError(msg)
    bases = [card for card in cards if not card.get("parent")]  # the others are LoRA adapters
    if not bases:
        msg = f"the server at {address} lists no model; if it has one nevertheless, give its name as model="
        raise ModelNotFoundError(msg)
    if len({_text(card.get("root")) or card["id"] for card in bases}) > 1:  # not only several names of one
        msg = f"the server at {address} serves several models; give model= as one of: {shown}"
        raise ConfigurationError(msg)
    return bases[0]


async def _parses_tools(connection: Connection, model: str) -> bool:
    """Find out whether a vLLM server shows tools to its model and reads the calls.

    Other servers are not asked: a question to them may cost money, and the text protocol is no alternative
    there, since it needs vLLM's grammars.
    """
    question = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    with_tools = {**question, "tools": [_PROBE_TOOL]}
    try:
        plain = await _tokenized(connection, question)
        shown = await _tokenized(connection, with_tools)
        if plain.get("count") == shown.get("count"):
            return False  # the template leaves them out, or nobody knows
        # Refused at once where the server has no parser.
        await connection.json("POST", CHAT, {**with_tools, "tool_choice": "auto", "max_tokens": 1})
    except RefusedError as error:
        if error.status in _BUSY or error.status >= 500:
            raise
        return False  # also where a proxy lets nobody ask, or answers with a page of its own
    return True


async def _told_by_tokens(connection: Connection, model: str, is_vllm: bool) -> tuple[str, ...]:
    """Find the control tokens of a server that does not show its tokenizer.

    A vLLM server is asked which of the well-known ones its tokenizer makes single tokens of, and which stand
    in the prompt of a short conversation; of others all well-known ones are taken, and of one behind a proxy
    that lets nobody ask.
    """
    if not is_vllm:
        return WELL_KNOWN
    roles = ("system", "user", "assistant", "user")
    talks = [{"messages": [{"role": role, "content": "x"} for role in roles[first:]]} for first in (0, 1)]
    questions: list[dict[str, Any]] = [
        {"prompt": "\n".join(WELL_KNOWN), "add_special_tokens": True},
        talks[0],
        talks[1],
    ]
    found: set[str] = set()
    for question in questions:
        with suppress(RefusedError):  # not every template takes a system's message
            answer = await _tokenized(connection, {"model": model, **question, "return_token_strs": True})
            texts = answer.get("token_strs")
            found.update(filter(looks_like_control, _texts(texts if isinstance(texts, list) else ())))
    return control_tokens(found, ()) or WELL_KNOWN


async def _tokenized(connection: Connection, question: Mapping[str, Any]) -> Mapping[str, Any]:
    answer = await connection.json("POST", "/tokenize", question)
    return answer if isinstance(answer, dict) else {}


async def _optional(connection: Connection, path: str) -> Mapping[str, Any]:
    with suppress(RefusedError):
        answer = await connection.json("GET", path)
        return answer if isinstance(answer, dict) else {}
    return {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _control_tokens(tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """Collect them from the tokenizer's configuration, longest first."""
    added = tokenizer.get("added_tokens_decoder")
    tokens = set(_texts(added.values() if isinstance(added, dict) else ()))
    for name, value in tokenizer.items():
        if name.endswith("_token"):
            tokens.update(_texts([value]))
        elif name.endswith("special_tokens") and isinstance(value, list):
            tokens.update(_texts(value))
    return tuple(sorted(tokens, key=lambda text: (-len(text), text)))


def _texts(tokens: Iterable[Any]) -> Iterator[str]:
    """Give the texts among tokens, some of which may be records of a text as tokenizers keep them."""
    for token in tokens:
        if text := _text(token.get("content") if isinstance(token, dict) else token):
            yield text
