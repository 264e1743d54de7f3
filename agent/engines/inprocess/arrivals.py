"""Which requests are on their way to the core, so that those that come together start together.

Callers that ask at once do not arrive at once: each request is checked, rendered and tokenized first, a
millisecond after the other. A core that starts with the first one computes a whole step for it alone, and the
others wait: 16 calls of two tokens took a third longer (``benchmarks/engine.py``). A call by itself waits for
nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_OWN: ContextVar[object] = ContextVar("announced_request")
"""The mark of the request that is being made in this context, which tasks that it starts inherit."""


class Arrivals:
    """Requests that were announced and have neither arrived nor failed.

    The front's loop alone changes it; the core's thread asks whether there are any.
    """

    def __init__(self) -> None:
        self._coming: set[object] = set()

    def __bool__(self) -> bool:
        return bool(self._coming)

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Announce a request until it arrives, or until the end where it never does."""
        mark = object()
        _OWN.set(mark)  # stays set: a stream may be closed in another context, where it could not be reset
        self._coming.add(mark)
        try:
            yield
        finally:
            self._coming.discard(mark)

    def arrived(self) -> None:
        """Say that the request of this context has arrived; whatever else it asks for is not waited for."""
        self._coming.discard(_OWN.get(None))
