"""A hub on loopback: it serves a directory's files, in ranges where it is asked to."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def safetensors(tensors: Mapping[str, tuple[str, list[int]]], *, data: int = 1000) -> bytes:
    """A safetensors file with these tensors, whose weights are zeros and too few: nobody may read them."""
    header = {
        name: {"dtype": kind, "shape": shape, "data_offsets": [0, 0]}
        for name, (kind, shape) in tensors.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


class Hub:
    """What is served, and what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None, int]] = []
        self.headers: list[dict[str, str]] = []
        self.ranges = True
        self.status: int | None = None
        self.address = ""

    def add(self, model: str, name: str, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.files[f"/{model}/resolve/main/{name}"] = data


@contextmanager
def serving_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.headers.append(dict(self.headers))
            data = hub.files.get(self.path)
            if hub.status or data is None:
                hub.asked.append((self.path, None, 0))
                self.send_error(hub.status or 404)
                return
            span = self.headers.get("Range") if hub.ranges else None
            if span:
                first, last = (int(each) for each in span.removeprefix("bytes=").split("-"))
                data = data[first : last + 1]
            hub.asked.append((self.path, span, len(data)))
            self.send_response(206 if span else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except ConnectionError:
                return  # who asked has read enough

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
