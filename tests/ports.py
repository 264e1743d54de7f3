"""Ports of loopback that stay a test's own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """A port for a server that is started, or started again, in this block.

    A port that was merely found to be free may be gone before the server binds it, also as the near end of
    somebody's connection. This one is given to nobody who does not ask for it. A server that reuses
    addresses, as nearly all do, can listen on it nevertheless; until then a connection to it is refused.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
