"""Pure conversions between LangGraph's checkpoints and rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from langchain_core.messages import BaseMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, get_checkpoint_id
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot

from agent.errors import ConfigurationError

MESSAGES_CHANNEL: Final = "messages"
TITLE_LENGTH: Final = 80
_INLINE_TEXT: Final = 64
"""A short string is kept in the checkpoint row itself; a longer one once per version, as other values are."""
_STORED: Final = "stored_channels"


@dataclass(frozen=True)
class Address:
    """Which checkpoint a config means."""

    thread_id: str
    ns: str
    checkpoint_id: str | None

    @classmethod
    def of(cls, config: RunnableConfig) -> Address:
        """Read it from ``configurable``.

        Raises:
            ConfigurationError: It does not say which thread.
        """
        configurable = configurable_of(config)
        return cls(
            thread_id=str(configurable["thread_id"]),
            ns=configurable.get("checkpoint_ns") or "",
            checkpoint_id=get_checkpoint_id(config),
        )

    def config(self, checkpoint_id: str | None = None) -> RunnableConfig:
        """The config that means this checkpoint, or another one of the same thread and namespace."""
        return {
            "configurable": {
                "thread_id": self.thread_id,
                "checkpoint_ns": self.ns,
                "checkpoint_id": checkpoint_id or self.checkpoint_id,
            }
        }

    def key(self) -> dict[str, str]:
        """Thread and namespace as statement parameters."""
        return {"thread_id": self.thread_id, "ns": self.ns}


def configurable_of(config: RunnableConfig) -> Mapping[str, Any]:
    """What a config says of a conversation.

    Raises:
        ConfigurationError: It does not say which.
    """
    try:
        configurable = config["configurable"]
        if configurable["thread_id"] is not None:
            return configurable
    except (KeyError, TypeError):
        pass
    raise ConfigurationError(
        f"this config names no conversation: {config!r}; give {{'configurable': {{'thread_id': …}}}}"
    )


def now() -> str:
    """The time as stored: ISO 8601 in UTC, so that text order is time order."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def split(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, str]]:
    """Divide a checkpoint into its small body and the versions of the values kept elsewhere."""
    body: dict[str, Any] = dict(checkpoint)
    versions = checkpoint["channel_versions"]
    inline = {}
    stored = {}
    for name, value in checkpoint["channel_values"].items():
        if name not in versions or _is_small(value):
            inline[name] = value
        else:
            stored[name] = str(versions[name])
    body["channel_values"] = inline
    if stored:
        body[_STORED] = stored
    return body, stored


def stored_versions(body: Mapping[str, Any]) -> dict[str, str]:
    """Which version of which channel a checkpoint's body refers to."""
    versions: dict[str, str] = body.get(_STORED, {})
    return versions


def join(body: dict[str, Any], values: Mapping[str, Any]) -> Checkpoint:
    """Undo :func:`split`, with the stored values that were found."""
    checkpoint = {name: value for name, value in body.items() if name != _STORED}
    checkpoint["channel_values"] = {**body["channel_values"], **values}
    return checkpoint  # type: ignore[return-value]  # the body has a checkpoint's keys


def status_after(checkpoint: Checkpoint) -> str:
    """``unfinished`` when a checkpoint has nodes to run next, else ``idle``.

    Only the compiled graph knows for certain; these channels are how LangGraph triggers a node.
    """
    values = checkpoint["channel_values"]
    for name, value in values.items():
        if name.startswith("branch:to:") or name == "__start__" or (name == TASKS and value):
            return "unfinished"
        if name.startswith("join:") and isinstance(value, set) and value == _joined(name):
            return "unfinished"
    return "idle"


def count_and_title(checkpoint: Checkpoint) -> tuple[int | None, str | None]:
    """How many messages a checkpoint has (``None`` if it does not hold them) and the title they suggest."""
    values = checkpoint["channel_values"]
    if MESSAGES_CHANNEL not in checkpoint["channel_versions"]:
        asked = values.get("__start__")
        return 0, title_of(asked.get(MESSAGES_CHANNEL)) if isinstance(asked, dict) else None
    messages = values.get(MESSAGES_CHANNEL)
    messages = messages.value if isinstance(messages, _DeltaSnapshot) else messages
    return (len(messages), title_of(messages)) if isinstance(messages, list) else (None, None)


def title_of(messages: Any) -> str | None:
    """The first question, shortened to one line."""
    for message in messages if isinstance(messages, list | tuple) else [messages]:
        if isinstance(message, HumanMessage):
            line = " ".join(storable(str(message.text)).split())
            return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"
    return None


def storable(text: str) -> str:
    """A text as both databases take it: PostgreSQL has no NUL, neither has half of a surrogate pair."""
    return text.replace("\0", " ").encode(errors="replace").decode()


def messages_added(value: Any) -> int | None:
    """How many messages a write to the messages channel adds; ``None`` if it can do more than add."""
    written = value if isinstance(value, list) else [value]
    for message in written:
        if not isinstance(message, BaseMessage) or isinstance(message, RemoveMessage):
            return None
    return len(written)


def _joined(name: str) -> set[str]:
    return set(name.removeprefix("join:").rsplit(":", 1)[0].split("+"))


def _is_small(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _INLINE_TEXT and type(value) is str
    return value is None or type(value) in (bool, int, float)
