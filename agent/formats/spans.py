"""Where in a prompt the content of a message stands."""

from __future__ import annotations

from collections.abc import Sequence


def content_span(prompt: Sequence[int], frame: Sequence[int]) -> slice:
    """Return where the content stands in a prompt, found by comparing with the prompt of empty content.

    Args:
        prompt: Token ids of a prompt whose last message has content.
        frame: Token ids of the same prompt with that content left empty.
    """
    shortest = min(len(prompt), len(frame))
    head = next((i for i in range(shortest) if prompt[i] != frame[i]), shortest)
    room = shortest - head  # the tail may not reach back into the head
    tail = next((i for i in range(room) if prompt[-1 - i] != frame[-1 - i]), room)
    return slice(head, len(prompt) - tail)
