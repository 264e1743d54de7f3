"""Where the page is served: told once it can be opened, refused where somebody else is."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from agent.errors import ConfigurationError
from agent.ui.server import HOST, serve


class Enough(Exception):
    """Ends a server that is not needed any more."""


@pytest.fixture
def desk() -> Any:
    return SimpleNamespace(open=None, close=lambda: asyncio.sleep(0))


def test_a_browser_is_let_in_as_soon_as_the_address_is_told(desk: Any) -> None:
    def ready(address: str) -> None:
        port = urlsplit(address).port
        assert port is not None
        socket.create_connection((HOST, port), timeout=10).close()
        raise Enough

    with pytest.raises(Enough):
        serve(desk, port=0, on_ready=ready)


def test_a_port_that_is_taken_is_named(desk: Any) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} of {HOST} cannot be used .*--port 0"):
            serve(desk, port=port, on_ready=pytest.fail)
