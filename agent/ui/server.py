"""Serves the page on loopback, until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError, ConfigurationError, MissingExtraError
from agent.ui.guard import Guard

if TYPE_CHECKING:
    from agent.ui.desk import Desk

HOST = "127.0.0.1"
_TOKEN_BYTES = 24
_GRACE = 3
"""Seconds that open pages have to take leave."""
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" '
    'fill="#3d4f9f"/><path d="M9 9v5a7 7 0 0 0 14 0V9M16 21v4" fill="none" stroke="#fff" '
    'stroke-width="2.6" stroke-linecap="round"/></svg>'
)


def serve(desk: Desk, *, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        desk: What the pages show.
        port: Of loopback; 0 takes a free one.
        on_ready: Told the address, with the token in it, once it can be opened.

    Raises:
        ConfigurationError: The port is taken.
        MissingExtraError: NiceGUI is not installed.
    """
    application = _application(desk)
    import uvicorn

    with _listening(port) as listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        config = uvicorn.Config(
            Guard(application, token=token, port=port),
            log_level="warning",
            access_log=False,  # it would write the token down
            timeout_graceful_shutdown=_GRACE,
        )
        server = uvicorn.Server(config)
        on_ready(f"http://{HOST}:{port}/?token={token}")
        server.run(sockets=[listener])


def _application(desk: Desk) -> Any:
    try:
        from nicegui import app, ui
    except ImportError as error:
        raise MissingExtraError(
            "the page needs NiceGUI, which is not installed: pip install 'vllm-agent[ui]'"
        ) from error
    from fastapi import FastAPI

    from agent.ui.page import Page

    @ui.page("/", title="vllm-agent", response_timeout=30)
    async def index(thread: str | None = None, graph: str | None = None) -> None:
        try:
            talk = await desk.open(thread, graph=graph)
        except AgentError as error:
            ui.notify(str(error), type="negative", timeout=0, close_button="OK")
            talk = await desk.open()
        await Page(desk, talk).build()

    app.on_shutdown(desk.close)
    outer = FastAPI(openapi_url=None)
    ui.run_with(
        outer,
        title="vllm-agent",
        favicon=_ICON,
        dark=None,
        language="en-US",
        tailwind=False,  # the page has a style sheet of its own
        show_welcome_message=False,
        reconnect_timeout=30,
    )
    return outer


def _listening(port: int) -> socket.socket:
    """A socket on which browsers wait from now on: the address can be opened as soon as it is told."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"port {port} of {HOST} cannot be used ({error.strerror}); try --port 0 takes a free one"
        ) from error
    return listener
