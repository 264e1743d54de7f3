"""A server on loopback whose answers a test writes down, byte by byte where it must."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    client: int
    """The port that it came from: calls on one connection share it."""


@dataclass(frozen=True)
class Answer:
    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """Break the connection in the place of ending the answer."""

    dropped: bool = False
    """Break the connection in the place of an answer."""


Handler = Callable[[Call], Answer]


@dataclass
class Double:
    address: str
    calls: list[Call]
    gone: threading.Event
    """Set when a client went away in the middle of an endless answer."""

    end: Callable[[], None]
    """Take no further connection."""

    def asked(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]


@contextmanager
def serving(handler: Handler, *, port: int = 0) -> Iterator[Double]:
    """Answer every call with what `handler` returns; bytes are sent as a stream, the rest as JSON."""

    class Responder(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, self.path, headers, body, self.client_address[1])
            double.calls.append(call)
            answer = handler(call)
            if answer.dropped:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if isinstance(answer.body, Iterator):
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.stream(answer)
                return
            content = json.dumps(answer.body).encode() if answer.body is not None else b""
            self.send_header("Content-Length", str(len(content) + (1 if answer.cut else 0)))
            self.end_headers()
            with suppress(OSError):  # the client gave up waiting
                self.wfile.write(content)
            self.close_connection = answer.cut

        def stream(self, answer: Answer) -> None:
            try:
                for part in answer.body:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                if not answer.cut:
                    self.wfile.write(b"0\r\n\r\n")
            except OSError:
                double.gone.set()
            self.close_connection = answer.cut

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Responder)
    double = Double(f"http://127.0.0.1:{server.server_port}", [], threading.Event(), server.socket.close)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
