"""Where the tests of this folder keep conversations: on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.persistence import ConversationStore, SQLSaver, open_checkpointer


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new place for conversations."""
    if request.param == "sqlite":
        return str(tmp_path / "c.sqlite")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def saver(where: str) -> Iterator[SQLSaver]:
    """An open database."""
    with open_checkpointer(where) as opened:
        yield opened


@pytest.fixture
def store(saver: SQLSaver) -> ConversationStore:
    """Its conversations, as a person handles them."""
    return ConversationStore(saver)
