"""The list of conversations from its table alone.

It needs neither LangGraph nor LangChain, so a command that only lists starts in half the time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing

from agent.persistence.database import Database
from agent.persistence.locations import database_url
from agent.persistence.overview import Conversation, newest, rows


def list_conversations(
    url: str | os.PathLike[str] | None = None,
    *,
    limit: int = 50,
    offset: int = 0,
    tag: str | None = None,
    encryption_key: str | bytes | None = None,
) -> Sequence[Conversation]:
    """Conversations of a database that need not be open, the last used first.

    Args:
        url: As for :func:`agent.persistence.open_checkpointer`.
        limit: At most so many.
        offset: After so many.
        tag: Only those with this tag.
        encryption_key: As for :func:`agent.persistence.open_checkpointer`.

    Raises:
        DatabaseError: It cannot be opened.
    """
    with closing(Database(database_url(url))) as database:
        found = [row.complete() for row in rows(database, newest(limit=limit, offset=offset, tag=tag))]
    if all(found):
        return [each for each in found if each is not None]
    from agent.persistence.conversations import ConversationStore
    from agent.persistence.opening import open_checkpointer

    with open_checkpointer(url, encryption_key=encryption_key) as saver:
        return ConversationStore(saver).list(limit=limit, offset=offset, tag=tag)
