"""Content blocks on their way to the wire."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.messages.content import create_audio_block, create_image_block, create_video_block

from agent import ChatVLLM
from agent.chat.requests import wire_messages
from agent.engines import ScriptedEngine
from agent.errors import RequestError, UnsupportedInputError

PNG = b"\x89PNG\r\n\x1a\n and so on"
DATA = base64.b64encode(PNG).decode()
URL = f"data:image/png;base64,{DATA}"


def parts(*blocks: Any) -> list[Any]:
    [wire] = wire_messages([HumanMessage(content=list(blocks))])
    content = wire["content"]
    assert isinstance(content, list)
    return content


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "block",
    [
        create_image_block(base64=DATA, mime_type="image/png"),
        {"type": "image", "base64": DATA},
        {"type": "image", "source_type": "base64", "data": DATA, "mime_type": "image/png"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
        {"type": "file", "base64": DATA, "mime_type": "image/png"},
        image(URL),
    ],
)
def test_an_image_as_data(block: Any) -> None:
    assert parts({"type": "text", "text": "What is it?"}, block) == [
        {"type": "text", "text": "What is it?"},
        image(URL),
    ]


@pytest.mark.parametrize(
    "block",
    [
        create_image_block(url="https://example.com/a.png"),
        {"type": "image", "source_type": "url", "url": "https://example.com/a.png"},
        image("https://example.com/a.png"),
    ],
)
def test_an_image_at_an_address(block: Any) -> None:
    assert parts(block) == [image("https://example.com/a.png")]


def test_an_image_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a picture.dat"
    path.write_bytes(PNG)
    for block in (
        {"type": "image", "path": str(path)},
        {"type": "image", "path": path},
        {"type": "image", "url": path.as_uri()},
        {"type": "image", "url": str(path)},
        image(path.as_uri()),
    ):
        assert parts(block) == [image(URL)]


def test_a_file_that_is_no_image_is_not_read_into_the_prompt(tmp_path: Path) -> None:
    secret = tmp_path / "picture.png"
    secret.write_text("secret")
    with pytest.raises(UnsupportedInputError, match="holds no image") as caught:
        parts({"type": "image", "path": str(secret)})
    assert "secret" not in str(caught.value)
    with pytest.raises(UnsupportedInputError, match="cannot be read"):
        parts({"type": "image", "path": str(tmp_path / "missing.png")})
    with pytest.raises(UnsupportedInputError, match="cannot be read"):
        parts({"type": "image", "path": str(tmp_path)})


def test_sound_and_video() -> None:
    assert parts(
        create_audio_block(base64="AAAA", mime_type="audio/mpeg"),
        create_audio_block(url="https://example.com/a.wav"),
        create_video_block(base64="AAAA", mime_type="video/mp4"),
    ) == [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
    ]


def test_texts_are_one_text() -> None:
    blocks = [
        "a",
        {"type": "text", "text": "b"},
        {"type": "text-plain", "text": "c", "mime_type": "text/plain"},
    ]
    blocks.append({"type": "file", "base64": base64.b64encode(b"d").decode(), "mime_type": "text/markdown"})
    [wire] = wire_messages([HumanMessage(content=blocks)])  # type: ignore[arg-type]
    assert wire["content"] == "a\nb\nc\nd"


def test_an_image_in_a_result() -> None:
    message = ToolMessage([create_image_block(base64=DATA, mime_type="image/png")], tool_call_id="1")
    [wire] = wire_messages([message])
    assert (wire["role"], wire["content"]) == ("tool", [image(URL)])


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"type": "file", "base64": "AAAA", "mime_type": "application/pdf"}, "application/pdf"),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}, "takes no files"),
        ({"type": "image", "file_id": "abc"}, "needs base64, url or path"),
        ({"type": "image", "base64": "AAAA"}, "give its mime_type"),
        ({"type": "text-plain", "mime_type": "text/plain"}, "neither text nor base64"),
        ({"type": "non_standard", "value": {}}, "not standard"),
        ({"type": "text-plain", "base64": "A", "mime_type": "text/plain"}, "no base64"),
        ({"type": "image", "path": "/dev/zero"}, "cannot be read"),
        ({"type": "image", "path": "~nobody-of-this-name/a.png"}, "cannot be read"),
        ({"type": "image", "path": "file://[::1/a.png"}, "cannot be read"),
        ({"type": "image", "url": "http://[::1/a.png"}, "is no address"),
        ({"type": "image_url", "image_url": {"url": "http://[::1/a.png"}}, "is no address"),
        ({"type": "hologram"}, "no model on vLLM takes"),
        ({"type": "text", "text": 5}, "the text of a text block is no text"),
        ({"type": "text-plain", "base64": 5}, "no base64 text but int"),
        ({"type": "image", "base64": b"AAAA"}, "no base64 text but bytes"),
        ({"type": "image", "base64": b"AAAA", "mime_type": "image/png"}, "no base64 text but bytes"),
        ({"type": "image_url"}, "needs an address"),
        ({"type": "image_url", "image_url": {"address": "x"}}, "needs an address"),
    ],
)
def test_what_has_no_place_is_refused_and_never_dropped(block: dict[str, Any], says: str) -> None:
    with pytest.raises(UnsupportedInputError, match=says):
        parts(block)


def test_an_error_does_not_show_the_data() -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        parts({"type": "file", "base64": "A" * 10_000, "mime_type": "application/pdf"})
    assert len(str(caught.value)) < 400


async def test_a_model_without_eyes_says_so() -> None:
    engine = ScriptedEngine([RequestError("/some/model is not a multimodal model")], repeat=True)
    message = HumanMessage(content=[{"type": "text", "text": "What is it?"}, image(URL)])
    async with ChatVLLM(engine=engine) as model:
        with pytest.raises(UnsupportedInputError, match="takes no image input"):
            await model.ainvoke([message])
        with pytest.raises(UnsupportedInputError, match="takes no image input"):
            _ = [chunk async for chunk in model.astream([message])]
        with pytest.raises(RequestError):
            await model.ainvoke("Hello!")


def test_blocks_of_reasoning_are_not_content() -> None:
    message = AIMessage(content=[{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "42"}])
    assert wire_messages([message]) == [{"role": "assistant", "content": "42", "reasoning": "Hm."}]
