"""The framing of streams: any split of the bytes gives the same events."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.remote.sse import EventDecoder


def decode(*parts: bytes) -> list[str]:
    decoder = EventDecoder()
    events = [event for part in parts for event in decoder.feed(part)]
    return events + decoder.finish()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n\n", ["one", "two"]),
        (b"data: one\r\n\r\ndata: two\r\n\r\n", ["one", "two"]),
        (b"data: one\r\rdata: two\r\r", ["one", "two"]),
        (b"data:tight\n\n", ["tight"]),
        (b"data:  two spaces\n\n", [" two spaces"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b": keep-alive\n\ndata: one\n\n", ["one"]),
        (b"event: message\nid: 7\nretry: 10\ndata: one\n\n", ["one"]),
        (b"data: not ended", ["not ended"]),
        (b"data: not ended\r", ["not ended"]),
        (b"data: \xff\n\n", ["\ufffd"]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_events(stream: bytes, events: list[str]) -> None:
    assert decode(stream) == events


def test_an_event_is_given_as_soon_as_it_is_whole() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: on") == []
    assert decoder.feed(b"e\n") == []
    assert decoder.feed(b"\n") == ["one"]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(texts, max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_any_split_gives_the_same_events(contents: list[str], ending: str, data: st.DataObject) -> None:
    # As servers send it: JSON without escapes, so also U+2028, U+0085 and other "line ends" of Unicode.
    payloads = [json.dumps({"content": content}, ensure_ascii=False) for content in contents]
    stream = "".join(f"data: {payload}{ending}{ending}" for payload in payloads).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(*parts) == payloads
