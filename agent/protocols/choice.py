"""Which template and which parsers a model is used with: what its family needs, and what the caller wants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.errors import ConfigurationError
from agent.protocols.families import family_of, tool_parser_for
from agent.protocols.templates import INSTRUCT, template


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the caller wants; ``"auto"`` leaves it to the family."""

    tool_parser: str | None = "auto"
    """vLLM's name of a tool parser; None for none."""

    reasoning_parser: str | None = "auto"
    """vLLM's name of a reasoning parser; None for none."""

    chat_template: str | None = None
    """A Jinja template, or a path to one, in the place of the model's own."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a model before it is loaded."""

    chat_template: str | None = None
    """The model's own template."""

    model_types: tuple[str, ...] = ()
    """``model_type`` and the like from its configuration."""

    writes_prompts: bool = False
    """Whether vLLM's tokenizer for it writes the prompts itself, and takes no template."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a model is used with."""

    chat_template: str | None
    """The Jinja source that its prompts are written by; None where vLLM writes them itself."""

    replaces: bool
    """Whether that is another one than the model's own."""

    tool_parser: str | None
    """vLLM's tool parser."""

    reasoning_parser: str | None
    """vLLM's reasoning parser."""

    family: str | None
    """The name of the model's family."""


def choose(known: Known, wanted: Wanted) -> Choice:
    """Choose for one model.

    Raises:
        ConfigurationError: ``chat_template`` is neither a template nor a file.
    """
    given = template_source(wanted.chat_template)
    source = given if given is not None else known.chat_template
    family = family_of(source, known.model_types, writes_prompts=known.writes_prompts)
    if given is None and family is not None and family.template is not None:
        source = template(family.template)
    elif source is None and family is None and not known.writes_prompts:
        source = template(INSTRUCT)
    tools, reasoning = wanted.tool_parser, wanted.reasoning_parser
    if tools == "auto":
        tools = tool_parser_for(family, source)
    if reasoning == "auto":
        reasoning = family.reasoning_parser if family else None
    return Choice(
        chat_template=source,
        replaces=source != known.chat_template,
        tool_parser=tools,
        reasoning_parser=reasoning,
        family=family.name if family else None,
    )


def template_source(given: str | None) -> str | None:
    """Return the Jinja source of a template that is given as such, or as a path.

    Raises:
        ConfigurationError: It is neither.
    """
    if given is None or any(mark in given for mark in ("{{", "{%", "\n")):
        return given
    path = Path(given).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        msg = f"chat_template={given!r} is neither a Jinja template nor a file that can be read: {error}"
        raise ConfigurationError(msg) from error
