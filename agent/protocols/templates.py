"""The chat templates that come with this package."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from importlib.resources import files

from agent.protocols.control import control_texts_of

INSTRUCT = "instruct"
"""The Mistral instruction form, for models that come without a chat template."""


@cache
def template(name: str) -> str:
    """Return the Jinja source of one template.

    Args:
        name: Its file's name in ``agent/protocols/jinja``, without the ending.
    """
    return (files(__package__) / "jinja" / f"{name}.jinja").read_text(encoding="utf-8")


def text_template(chat_template: str | None = None, *, control_tokens: Collection[str] = ()) -> str:
    """Return a template that calls tools by the text protocol, for a plain ``vllm serve``.

    Args:
        chat_template: The model's own template, whose form the conversation keeps; None for a model without
            one, which then gets the Mistral instruction form.
        control_tokens: Texts that the model's tokenizer makes control tokens of. The template breaks them,
            and its own marks, in all content.
    """
    own = chat_template if chat_template is not None else template(INSTRUCT)
    broken = sorted({*control_tokens, *control_texts_of(own)}, key=lambda text: (-len(text), text))
    listed = json.dumps(broken, ensure_ascii=False)
    return f"{{%- set text_control = {listed} %}}{template('text_tools')}{own}"
