"""Does vLLM's tool parser read the calls that the chat template writes? Asked before the first request.

A parser of another family fails in silence: the call stays in the text, and an agent stops. The template
shows the model what a call looks like, so one call is put through it as a turn of the assistant, and what it
writes is given to the parser as if the model had. Nothing is generated, so this takes milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

NAME = "get_weather"
ARGUMENTS = {"city": "Paris"}
_TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Say how the weather is.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city."}},
            "required": ["city"],
        },
    },
}
_QUESTION = {"role": "user", "content": "How is the weather in Paris?"}
_CALL = {
    "id": "abcdefghi",  # nine letters or digits, as Mistral's templates want it
    "type": "function",
    "function": {"name": NAME, "arguments": json.dumps(ARGUMENTS)},
}

Render = Callable[[ChatCompletionRequest], Awaitable[Sequence[int]]]


def request(*answers: dict[str, Any], prompting: bool = True) -> ChatCompletionRequest:
    """Return the request of the probe: a question, and what the assistant is to have said."""
    return ChatCompletionRequest.model_validate(
        {
            "messages": [_QUESTION, *answers],
            "tools": [_TOOL],
            "tool_choice": "auto",
            "add_generation_prompt": prompting,
        }
    )


async def written_call(render: Render) -> tuple[list[int], list[int]]:
    """Return the prompt of the question, and what the template writes for a call in answer to it.

    Args:
        render: Gives the token ids of a request's prompt.
    """
    prompt = list(await render(request()))
    called = await _answered(render, {"role": "assistant", "content": "", "tool_calls": [_CALL]})
    start = _shared(prompt, called)
    plain = await _answered(render, {"role": "assistant", "content": "x"})
    end = _shared(plain[::-1], called[start:][::-1])  # what ends every turn belongs to none
    return prompt[:start], called[start : len(called) - end]


def read_back(
    parser_class: Any, tokenizer: Any, prompt: list[int], call: list[int], **options: Any
) -> str | None:
    """Return None if the parser reads the call from these tokens, or else what it made of them.

    Args:
        parser_class: Of ``vllm.parser``, with a tool parser in it.
        tokenizer: The model's tokenizer.
        prompt: Token ids of the prompt.
        call: Token ids of the call as the template writes it.
        options: Further arguments of the parser.
    """
    asked = request()
    parser = parser_class(tokenizer, asked.tools, **options)
    asked = parser.adjust_request(asked)
    parser.set_prompt_token_ids(prompt)
    text = tokenizer.decode(call, skip_special_tokens=bool(asked.skip_special_tokens))
    _, content, calls = parser.parse(text, asked, enable_auto_tools=True, model_output_token_ids=call)
    if len(calls or ()) == 1 and calls[0].name == NAME and _same(calls[0].arguments):
        return None
    found = [(one.name, one.arguments) for one in calls or ()]
    return f"of {text!r} it makes the calls {found!r} and the text {content!r}"


def read_streamed(
    parser_class: Any, tokenizer: Any, prompt: list[int], call: list[int], **options: Any
) -> bool:
    """Return whether the parser reads the call one token at a time as well; see :func:`read_back`."""
    asked = request()
    parser = parser_class(tokenizer, asked.tools, **options)
    asked = parser.adjust_request(asked)
    skip = bool(asked.skip_special_tokens)
    names, arguments, seen = "", "", ""
    for end in range(1, len(call) + 1):
        text = tokenizer.decode(call[:end], skip_special_tokens=skip)
        delta = parser.parse_delta(
            delta_text=text[len(seen) :],
            delta_token_ids=[call[end - 1]],
            request=asked,
            prompt_token_ids=prompt,
            finished=end == len(call),
        )
        seen = text
        for part in (delta and delta.tool_calls) or ():
            names += part.function.name or ""
            arguments += part.function.arguments or ""
    return names == NAME and _same(arguments)


async def _answered(render: Render, answer: dict[str, Any]) -> list[int]:
    return list(await render(request(answer, prompting=False)))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    shortest = min(len(one), len(other))
    return next((i for i in range(shortest) if one[i] != other[i]), shortest)


def _same(arguments: str) -> bool:
    try:
        return bool(json.loads(arguments) == ARGUMENTS)
    except ValueError:
        return False
