"""The peer of ``bfcl.py``: ``ChatOpenAI`` on vLLM's own server, set up as well as the model lets it be.

The server is told everything that it can be told: ``--enable-auto-tool-choice``, a tool parser, and a chat
template in that parser's format, since a model without a tool format of its own has none. Of vLLM's formats
there is one of each kind that fits a ChatML model: Hermes 2 Pro's, which most such models were trained on,
Python calls, and a JSON list, which SmolLM2's makers document and ``xlam`` reads. (``llama3_json`` refuses a
tokenizer without ``<|python_tag|>``.) With ``--tool-strict-level parameter`` arguments are decoded under the
tools' schemas, as ours are, where a parser has a structural tag; where it has none, vLLM does so itself for
``required``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from benchmarks.server import KEY, NAME, open_server

_TEMPLATES = Path(__file__).with_name("peer")
PARSERS = tuple(sorted(path.stem for path in _TEMPLATES.glob("*.jinja")))
"""vLLM's tool parsers for which there is a template."""


@contextmanager
def open_peer(model: Path, *, max_tokens: int, parser: str) -> Iterator[ChatOpenAI]:
    """Start vLLM's server on loopback and give the peer on it; the server ends with the block.

    Args:
        model: The model's directory.
        max_tokens: Longest answer.
        parser: The tool parser, one of :data:`PARSERS`.

    Raises:
        RuntimeError: The server did not start; the message ends with its log.
    """
    with open_server(model, dtype="float32", enforce_eager=True, **tool_arguments(parser)) as server:
        yield ChatOpenAI(
            model=NAME,
            base_url=server.base_url,
            api_key=SecretStr(KEY),
            temperature=0.0,
            max_completion_tokens=max_tokens,
            timeout=600,
        )


def tool_arguments(parser: str) -> dict[str, Any]:
    """What the server has to be told so that its model calls tools."""
    return {
        "enable_auto_tool_choice": True,
        "tool_call_parser": parser,
        "chat_template": _TEMPLATES / f"{parser}.jinja",
        "tool_strict_level": "parameter",
    }
