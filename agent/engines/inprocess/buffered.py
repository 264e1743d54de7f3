"""A tool parser that reads whole answers, made to read streamed ones: it waits for the end.

Some of vLLM's parsers lose their calls when an answer is streamed (``phi4_mini_json`` of vLLM 0.32 reads none
at all). With tools bound, a stream then brings its content and its calls with the last chunk, and nothing is
lost. What the model thinks is streamed as ever.
"""

from __future__ import annotations

from typing import Any

from vllm.entrypoints.generate.base.protocol import DeltaFunctionCall, DeltaMessage, DeltaToolCall
from vllm.tool_parsers import ToolParserManager


def buffered(name: str) -> str:
    """Register the waiting kind of one tool parser, and return its name.

    Args:
        name: vLLM's name of the parser.
    """
    made = f"{name}_buffered"
    if made not in ToolParserManager.list_registered():
        kind = type("Buffered", (_Waiting, ToolParserManager.get_tool_parser(name)), {})
        ToolParserManager.register_module(made, module=kind)
    return made


class _Waiting:
    """Goes before the class of a parser and takes the place of its streaming."""

    engine_based_streaming = True  # it keeps the text itself, and is told when the answer is over

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._text = ""
        self._request: Any = None

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Any,
        current_token_ids: Any,
        delta_token_ids: Any,
        request: Any,
    ) -> None:
        """Keep the next piece."""
        self._text += delta_text
        self._request = request

    def finish_streaming(self) -> DeltaMessage | None:
        """Read what was kept."""
        if not self._text:
            return None
        found = self.extract_tool_calls(self._text, self._request)  # type: ignore[attr-defined]  # the parser's
        calls = [
            DeltaToolCall(
                index=index,
                id=call.id,
                type="function",
                function=DeltaFunctionCall(name=call.function.name, arguments=call.function.arguments),
            )
            for index, call in enumerate(found.tool_calls)
        ]
        content = found.content or None
        return DeltaMessage(content=content, tool_calls=calls) if calls else DeltaMessage(content=content)
