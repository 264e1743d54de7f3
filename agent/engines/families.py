"""Which of vLLM's tool parsers reads a model's own call format, found from its chat template.

The template is what the model was trained on, so it says more than a name: fine-tunes keep the template of
their family and change the name. The names on the right are those of ``vllm.tool_parsers`` 0.32.
"""

from __future__ import annotations

# The first mark that stands in the template decides, so the more special ones come first.
_MARKS: tuple[tuple[str, str], ...] = (
    ("<|channel|>", "openai"),  # gpt-oss (harmony)
    ("<｜tool▁calls▁begin｜>", "deepseek_v3"),
    ("<start_function_call>", "functiongemma"),
    ("<function=", "qwen3_xml"),  # Qwen3-Coder
    ("<tool_call>", "hermes"),  # Hermes, Qwen 2.5 and 3
    ("[TOOL_CALLS]", "mistral"),
    ("<|tool|>", "phi4_mini_json"),
    ("<|tool_call|>", "granite"),
    ("<|python_tag|>", "llama3_json"),
    ("<|python_start|>", "llama4_pythonic"),
)


def takes_tools(chat_template: str | None) -> bool:
    """Whether the template shows tools to the model at all."""
    return chat_template is not None and "tools" in chat_template


def tool_parser_for(chat_template: str | None) -> str | None:
    """Return vLLM's parser for the calls that this template teaches; None where none is known."""
    if not takes_tools(chat_template):
        return None
    assert chat_template is not None
    for mark, parser in _MARKS:
        if mark in chat_template:
            return parser
    return None
