"""From LangChain's content blocks to the parts of a message on the wire.

Blocks of text, image, audio and video are converted, in LangChain's standard form and in the older ones.
Files on this machine are read here, so that a server, and vLLM itself, need no access to them. Reasoning
and calls have places of their own on the wire. What has no place is refused, never dropped.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from langchain_core.messages import BaseMessage

from agent.errors import RequestError, UnsupportedInputError

MEDIA_PARTS = ("image_url", "audio_url", "input_audio", "video_url")
"""Parts that only a multimodal model takes."""

_PARTS = ("text", "refusal", *MEDIA_PARTS)
_CALLS = ("tool_call", "tool_call_chunk", "invalid_tool_call")
_MEDIA = ("image", "audio", "video")
# The first bytes of what a file may be. They count, and not its name: whoever can write a path into a message
# must not get the contents of just any file into a prompt.
_SIGNATURES: Mapping[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
    b"OggS": "audio/ogg",
    b"fLaC": "audio/flac",
    b"\x1aE\xdf\xa3": "video/webm",
}
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_NO_MULTIMODAL = ("is not a multimodal model", "At most 0 ", "not support multimodal", "multimodal inputs")


def standard_parts(message: BaseMessage) -> tuple[str | list[Any], str]:
    """Convert a message's content.

    Returns:
        The content, its standard blocks as parts on the wire and all others as they were, and the text of
        its reasoning.

    Raises:
        UnsupportedInputError: A block is of a kind that no model on vLLM takes, or its file cannot be read.
    """
    reasoning = message.additional_kwargs.get("reasoning_content") or ""
    if isinstance(message.content, str):
        return message.content, reasoning if isinstance(reasoning, str) else ""
    parts: list[Any] = []
    thoughts: list[str] = []
    for block in message.content:
        if not isinstance(block, dict):
            parts.append(block)
        elif block.get("type") in ("reasoning", "thinking"):
            thoughts.append(str(block.get("reasoning") or block.get("thinking") or ""))
        elif block.get("type") not in _CALLS:  # those are in message.tool_calls as well
            parts.append(_part(block))
    if thoughts:
        reasoning = "".join(thoughts)
    return parts, reasoning if isinstance(reasoning, str) else ""


def with_mime_types(message: BaseMessage) -> BaseMessage:
    """Return the message with the type of its data named, which LangChain insists on; or itself.

    Raises:
        UnsupportedInputError: The data of a block is of no known format.
    """
    if isinstance(message.content, str):
        return message
    blocks = [*map(_with_mime_type, message.content)]
    return message if blocks == message.content else message.model_copy(update={"content": blocks})


def check_parts(wire: Mapping[str, Any]) -> None:
    """Refuse parts of a message on the wire that vLLM has no place for.

    Raises:
        UnsupportedInputError: There is one.
    """
    if isinstance(parts := wire.get("content"), list):
        for part in parts:
            if part.get("type") not in _PARTS:
                msg = f"a message has content that no model on vLLM takes: {_shown(part)}"
                raise UnsupportedInputError(msg)


def has_media(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a message on the wire has a part that only multimodal models take."""
    return any(
        isinstance(part, Mapping) and part.get("type") in MEDIA_PARTS
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


def refused_media(
    error: RequestError, request: Mapping[str, Any], model: str
) -> UnsupportedInputError | None:
    """Return the error to raise where the engine refused a request for its images, sounds or videos."""
    if not has_media(request["messages"]) or not any(sign in str(error) for sign in _NO_MULTIMODAL):
        return None
    kinds = {
        part["type"].removesuffix("_url").removeprefix("input_")
        for message in request["messages"]
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if isinstance(part, Mapping) and part.get("type") in MEDIA_PARTS
    }
    return UnsupportedInputError(
        f"the model {model} takes no {' and no '.join(sorted(kinds))} input, and a message has some; take a "
        f"multimodal model, or leave it out ({error})"
    )


def _part(block: Mapping[str, Any]) -> Any:
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": _text(block)}
    if kind == "text-plain":
        return _plain_text(block)
    if kind in _MEDIA and not _is_foreign(block):
        return _media(kind, block)
    if kind == "file":
        return _file(block)
    if kind == "image_url":
        if not (url := _url_of(block.get("image_url"))):
            msg = f"this image block needs an address, as {{'image_url': {{'url': …}}}}: {_shown(block)}"
            raise UnsupportedInputError(msg)
        return _wire_part("image", _read(url, "image")) if _is_local(url) else block
    if kind == "non_standard":
        msg = f"a content block is not standard, and vLLM has no place for it: {_shown(block)}"
        raise UnsupportedInputError(msg)
    return block


def _is_foreign(block: Mapping[str, Any]) -> bool:
    """Whether this is another software's image block, which LangChain converts."""
    return isinstance(block.get("source"), Mapping) or isinstance(block.get("image"), Mapping)


def _text(block: Mapping[str, Any]) -> str:
    if not isinstance(text := block.get("text", ""), str):
        msg = f"the text of a text block is no text: {_shown(block)}"
        raise UnsupportedInputError(msg)
    return text


def _plain_text(block: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(text := block.get("text"), str):
        return {"type": "text", "text": text}
    if data := block.get("base64"):
        return {"type": "text", "text": _decoded(data, block).decode("utf-8", "replace")}
    msg = f"a text block has neither text nor base64: {_shown(block)}"
    raise UnsupportedInputError(msg)


def _media(kind: str, block: Mapping[str, Any]) -> dict[str, Any]:
    data = block.get("base64") or (block.get("data") if block.get("source_type") == "base64" else None)
    if data is not None:
        if not isinstance(data, str):  # b64encode gives bytes
            raise _no_base64(data, block)
        return _wire_part(kind, f"data:{_mime_type(kind, block, data)};base64,{data}")
    place = block.get("path") or block.get("url")
    if isinstance(place, str | Path) and str(place):
        url = str(place)
        return _wire_part(kind, _read(url, kind) if "path" in block or _is_local(url) else url)
    msg = f"this {kind} block needs base64, url or path: {_shown(block)}"
    raise UnsupportedInputError(msg)


def _with_mime_type(block: Any) -> Any:
    if not isinstance(block, dict) or block.get("type") not in _MEDIA or block.get("mime_type"):
        return block
    data = block.get("base64")
    return {**block, "mime_type": _mime_type(block["type"], block, data)} if data else block


def _mime_type(kind: str, block: Mapping[str, Any], data: Any) -> str:
    mime = block.get("mime_type") or _sniff(_decoded(data[:64] if isinstance(data, str) else data, block))
    if not mime:
        msg = f"the data of this {kind} block is of no known format; give its mime_type: {_shown(block)}"
        raise UnsupportedInputError(msg)
    return str(mime)


def _decoded(data: Any, block: Mapping[str, Any]) -> bytes:
    if not isinstance(data, str):
        raise _no_base64(data, block)
    try:
        return base64.b64decode(data + "=" * (-len(data) % 4))
    except ValueError as error:
        msg = f"the data of a content block is no base64 ({error}): {_shown(block)}"
        raise UnsupportedInputError(msg) from error


def _no_base64(data: Any, block: Mapping[str, Any]) -> UnsupportedInputError:
    return UnsupportedInputError(
        f"the data of a content block is no base64 text but {type(data).__name__}: {_shown(block)}"
    )


def _wire_part(kind: str, url: str) -> dict[str, Any]:
    if kind == "audio" and url.startswith("data:"):
        head, _, data = url.partition(",")
        form = head.removeprefix("data:").split(";")[0].removeprefix("audio/").removeprefix("x-")
        form = {"mpeg": "mp3", "vnd.wave": "wav", "wave": "wav"}.get(form, form)
        return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
    name = f"{kind}_url"
    return {"type": name, name: {"url": url}}


def _file(block: Mapping[str, Any]) -> Any:
    """Take a file for what it holds; documents have no place in vLLM's requests."""
    mime = str(block.get("mime_type") or "")
    kind = mime.partition("/")[0]
    if kind in _MEDIA:
        return _media(kind, block)
    data = block.get("base64") or (
        block.get("data") if block.get("source_type") in ("base64", "text") else None
    )
    if kind == "text" and data:
        text = (
            data if block.get("source_type") == "text" else _decoded(data, block).decode("utf-8", "replace")
        )
        return {"type": "text", "text": text}
    msg = (
        f"vLLM takes no files{f' of type {mime}' if mime else ''}; send their text, or pages as images: "
        f"{_shown(block)}"
    )
    raise UnsupportedInputError(msg)


def _url_of(value: Any) -> str:
    url = value.get("url") if isinstance(value, Mapping) else value
    return url if isinstance(url, str) else ""


def _is_local(url: str) -> bool:
    try:
        scheme = urlparse(url).scheme
    except ValueError as error:  # half a bracket, for one
        msg = f"{url[:200]!r} is no address: {error}"
        raise UnsupportedInputError(msg) from error
    return scheme in ("file", "") or url[1:3] in (":\\", ":/")


def _read(place: str, kind: str) -> str:
    """Read a file of this machine as a data URL.

    Raises:
        UnsupportedInputError: It cannot be read, or holds something else.
    """
    try:
        path = Path(unquote(urlparse(place).path) if place.startswith("file:") else place).expanduser()
        if not path.is_file():  # nor read from a device without an end
            raise FileNotFoundError("there is no such file")
        data = path.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # the second for ~ of nobody
        msg = f"the {kind} {place!r} cannot be read: {error}"
        raise UnsupportedInputError(msg) from error
    mime = _sniff(data)
    if not mime.startswith(f"{kind}/"):
        named = mimetypes.guess_type(path.name)[0] or "unknown"
        msg = f"{str(path)!r} holds no {kind} (its name says {named}, its content {mime or 'nothing known'})"
        raise UnsupportedInputError(msg)
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _sniff(data: bytes) -> str:
    """Return the type of what begins with these bytes; empty where it is unknown."""
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12], "")
    if data[4:8] == b"ftyp":
        return "image/avif" if data[8:12] == b"avif" else "audio/mp4" if data[8:11] == b"M4A" else "video/mp4"
    return next((mime for start, mime in _SIGNATURES.items() if data.startswith(start)), "")


def _shown(block: Mapping[str, Any]) -> str:
    """Show a block without its data, which may be megabytes."""
    return repr(
        {name: value if len(str(value)) <= 80 else f"{str(value)[:40]}…" for name, value in block.items()}
    )
