"""What :class:`agent.persistence.ConversationStore` tells about conversations."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_core.messages import BaseMessage

from agent.persistence.overview import Conversation


@dataclass(frozen=True)
class Transcript(Conversation):
    """A conversation with what was said."""

    checkpoint_id: str
    """Where in its history this is."""
    messages: tuple[BaseMessage, ...]
    """Oldest first."""


@dataclass(frozen=True)
class Match:
    """A message that was found."""

    id: str
    """The conversation's thread id."""
    position: int
    """Which of its messages, from 0."""
    role: str
    """``human``, ``ai``, ``tool`` or ``system``."""
    excerpt: str
    """The words around the match."""


@dataclass(frozen=True)
class Moved:
    """What was copied into another database."""

    copied: tuple[str, ...]
    """Thread ids that are new there."""
    skipped: tuple[str, ...]
    """Thread ids that were there already; they are left as they are."""


@dataclass(frozen=True)
class SizeReport:
    """What the conversations take up."""

    conversations: int
    """How many there are."""
    checkpoints: int
    """How many steps of them are kept."""
    bytes_on_disk: int
    """Of the SQLite file and its side files, or of the PostgreSQL database."""
    largest: tuple[tuple[str, int], ...]
    """The ten largest by thread id, with the bytes of their values."""
