"""Who is told the hub's token, and what a hub that is none makes of a question."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hub_double import serving_hub

from agent.catalogue.fetch import find_source
from agent.errors import ConfigurationError, ModelNotFoundError

LLAMA = {"architectures": ["LlamaForCausalLM"]}


@pytest.fixture(autouse=True)
def an_empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that says the same whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(answer.replace(b"PATH", self.path.encode()))

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_the_token_stays_with_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving_hub() as storage:
        storage.add("nobody/tiny", "config.json", LLAMA)
        moved = f"HTTP/1.0 302 Found\r\nLocation: {storage.address}PATH\r\n\r\n"
        with answering(moved.encode()) as hub:
            assert find_source("nobody/tiny", endpoint=hub).config == LLAMA
        assert storage.headers
        assert not [each for each in storage.headers if "Authorization" in each]


def test_the_line_break_at_the_end_of_a_token_file_is_no_part_of_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret\n")
    with serving_hub() as hub:
        hub.add("nobody/tiny", "config.json", LLAMA)
        find_source("nobody/tiny", endpoint=hub.address)
        assert {each.get("Authorization") for each in hub.headers} == {"Bearer hf_secret"}


def test_what_speaks_no_http_is_no_hub() -> None:
    with answering(b"garbage\r\n\r\n") as address, pytest.raises(ModelNotFoundError, match="cannot be asked"):
        find_source("nobody/tiny", endpoint=address)


@pytest.mark.parametrize("address", ["http://exa mple", "http://localhost:port"])
def test_an_address_that_is_none_is_no_hub(address: str) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be asked"):
        find_source("nobody/tiny", endpoint=address)


@pytest.mark.parametrize("token", ["hf_secret\nmore", "hf_secr€t"])
def test_a_token_that_is_none_is_refused_and_not_shown(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigurationError, match="HF_TOKEN") as caught:
        find_source("nobody/tiny", endpoint="http://127.0.0.1:9")
    assert "secr" not in str(caught.value)
