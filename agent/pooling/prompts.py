"""What a model wants to see before queries and documents."""

from __future__ import annotations

import json
from pathlib import Path

from agent.errors import ModelNotFoundError

_QUERY = ("query", "search_query")
_DOCUMENT = ("document", "passage", "search_document", "corpus")


def known_prompts(model: str | None) -> tuple[str, str]:
    """Return what stands before a query and before a document; empty where nothing is known.

    A directory says so in the file of Sentence Transformers; of other models the catalogue knows.

    Args:
        model: A directory, a hub id or a served name.
    """
    if model is None:
        return "", ""
    try:
        told = json.loads((Path(model).expanduser() / "config_sentence_transformers.json").read_text("utf-8"))
        prompts = told.get("prompts") if isinstance(told, dict) else None
    except (OSError, ValueError):
        prompts = None
    if isinstance(prompts, dict) and prompts:
        return _first(prompts, _QUERY), _first(prompts, _DOCUMENT)
    from agent.catalogue.models import find_model

    try:
        known = find_model(model)
    except ModelNotFoundError:
        return "", ""
    return known.query_prompt or "", known.document_prompt or ""


def _first(prompts: dict[str, str], names: tuple[str, ...]) -> str:
    return next((str(prompts[name]) for name in names if prompts.get(name)), "")
