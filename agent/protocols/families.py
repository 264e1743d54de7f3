"""Which family of models a model belongs to, and so which of vLLM's parsers read what it writes.

The data is in ``families.toml``, with the rules by which a family is recognised.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family of models calls tools and thinks aloud."""

    name: str
    """For people to read."""

    marks: tuple[str, ...] = ()
    """Texts that all stand in the chat templates of the family."""

    without: tuple[str, ...] = ()
    """Texts that stand in none of them."""

    model_types: tuple[str, ...] = ()
    """``model_type`` of ``config.json``, where the template does not tell."""

    templateless: bool = False
    """Whether vLLM writes the prompts of the family itself, so that it needs no chat template."""

    tool_parser: str | None = None
    """vLLM's tool parser; None where the family was taught no calls."""

    reasoning_parser: str | None = None
    """vLLM's reasoning parser; None where the family does not think aloud."""

    template: str | None = None
    """Name of the template of ours that takes the place of the model's own; None where that one does."""

    note: str = ""
    """What a person should know."""


@cache
def families() -> tuple[Family, ...]:
    """Return all families, the more special ones first."""
    with (files(__package__) / "families.toml").open("rb") as source:
        records = tomllib.load(source)["family"]
    return tuple(Family(**{name: _frozen(value) for name, value in record.items()}) for record in records)


def takes_tools(chat_template: str | None) -> bool:
    """Whether the template shows tools to the model at all."""
    return chat_template is not None and "tools" in chat_template


def family_of(
    chat_template: str | None, model_types: Collection[str] = (), *, writes_prompts: bool = False
) -> Family | None:
    """Return the family of a model; None where it is of none that is known.

    Args:
        chat_template: The Jinja source of its chat template; None where it has none.
        model_types: ``model_type`` and the like from its configuration.
        writes_prompts: Whether vLLM's tokenizer for the model writes the prompts itself.
    """
    if chat_template is not None:
        for family in families():
            if (
                family.marks
                and all(mark in chat_template for mark in family.marks)
                and not any(mark in chat_template for mark in family.without)
            ):
                return family
        if not takes_tools(chat_template):
            return None
    for family in families():
        told = chat_template is not None or writes_prompts or family.templateless
        if told and set(model_types) & set(family.model_types):
            return family
    return None


def tool_parser_for(family: Family | None, chat_template: str | None) -> str | None:
    """Return vLLM's parser for the calls that this template teaches; None where it teaches none.

    Args:
        family: The model's family.
        chat_template: The template that the model is used with.
    """
    if family is None:
        return None
    return family.tool_parser if chat_template is None or takes_tools(chat_template) else None


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
