"""Proxies and certificates that the environment names, and that nobody can use."""

from __future__ import annotations

import pytest

from agent import ChatVLLM
from agent.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "foo://bar:9"),
        ("HTTP_PROXY", "http://a:b:c"),
        ("ALL_PROXY", "socks9://127.0.0.1:1080"),
        ("SSL_CERT_FILE", "/nowhere/at/all"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with ChatVLLM(base_url="http://model.example", max_retries=0) as model:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=name):
                model.start()
