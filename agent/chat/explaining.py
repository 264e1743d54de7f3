"""``ChatVLLM.explain``: the exact prompt and grammar of a call, without making it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.chat.session import Session
from agent.engines.base import EngineInfo
from agent.formats.content import ContentAsData
from agent.formats.text.engine import TextToolEngine


@dataclass(frozen=True)
class Explanation:
    """What one call would give to the model."""

    prompt: str
    """The prompt as text, control tokens included."""

    token_ids: tuple[int, ...]
    """The prompt as the model gets it."""

    protocol: str
    """``"native"`` or ``"text"``: how tools are called."""

    grammar: str | None
    """What the answer is held to: a grammar in xgrammar's notation, or JSON as vLLM's structured outputs take
    it; None where the model writes freely. A server's own parsers may add to it."""

    alternatives: tuple[str, ...]
    """Further grammars, where the answer is the likeliest of several."""

    engine: EngineInfo
    """The engine, with the model's family, its parsers and its chat template."""


async def explanation(session: Session, request: Mapping[str, Any]) -> Explanation:
    """Explain one request. Must run on the engine's loop.

    Where the text protocol has to decide whether to call a tool (``tool_choice="auto"``), it asks the engine
    as it would for an answer; nothing is generated.

    Args:
        session: The model's hold on its engine.
        request: A chat request in wire form.

    Raises:
        RequestError: The engine refuses the request, or cannot explain.
    """
    calling, info, protocol = await session.ready()
    engine, _ = await session.started()
    safe = ContentAsData(engine, info)
    requests = await calling.plan(request) if isinstance(calling, TextToolEngine) else [dict(request)]
    first, *others = [await safe.explain(one) for one in requests]
    return Explanation(
        prompt=first.prompt,
        token_ids=first.token_ids,
        protocol=protocol,
        grammar=first.grammar,
        alternatives=tuple(other.grammar for other in others if other.grammar is not None),
        engine=info,
    )
