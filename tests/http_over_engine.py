"""vLLM's own HTTP server on an engine of this process: its routes, without a second start of vLLM."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from vllm.entrypoints.launchers.app import build_app

from agent import ChatVLLM
from agent.engines import LocalEngine
from agent.pooling.model import PoolingModel


@contextmanager
def over_http(model: PoolingModel | ChatVLLM) -> Iterator[str]:
    """Serve the engine of a model and yield the address."""
    model.start()
    engine: Any = model._session.engine()
    assert isinstance(engine, LocalEngine)
    state = engine._server._state  # type: ignore[union-attr]
    app = build_app(state.args, engine._server.tasks, state.engine_client.model_config)  # type: ignore[union-attr, arg-type]
    app.state._state.update(state._state)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        running = engine.loop.submit(server.serve(sockets=[listening]))
        while not server.started:
            assert not running.done()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            running.result(timeout=120)
