"""Conversations that outlive the process: one LangGraph saver, a tool journal, a store to browse them.

Names are imported when first used: most need LangGraph, which takes longer to import than a short command.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.persistence.checkup import Problem
    from agent.persistence.conversations import ConversationStore
    from agent.persistence.importing import Imported, import_langgraph_postgres, import_langgraph_sqlite
    from agent.persistence.journal import JournalEntry, ToolJournal
    from agent.persistence.listing import list_conversations
    from agent.persistence.moments import Difference, Moment
    from agent.persistence.opening import open_checkpointer
    from agent.persistence.overview import Conversation
    from agent.persistence.reports import Match, Moved, SizeReport, Transcript
    from agent.persistence.saver import SQLSaver

_HOMES = {
    "Conversation": "agent.persistence.overview",
    "ConversationStore": "agent.persistence.conversations",
    "Difference": "agent.persistence.moments",
    "Imported": "agent.persistence.importing",
    "JournalEntry": "agent.persistence.journal",
    "Match": "agent.persistence.reports",
    "Moment": "agent.persistence.moments",
    "Moved": "agent.persistence.reports",
    "Problem": "agent.persistence.checkup",
    "SQLSaver": "agent.persistence.saver",
    "SizeReport": "agent.persistence.reports",
    "ToolJournal": "agent.persistence.journal",
    "Transcript": "agent.persistence.reports",
    "import_langgraph_postgres": "agent.persistence.importing",
    "import_langgraph_sqlite": "agent.persistence.importing",
    "list_conversations": "agent.persistence.listing",
    "open_checkpointer": "agent.persistence.opening",
}

__all__ = [
    "Conversation",
    "ConversationStore",
    "Difference",
    "Imported",
    "JournalEntry",
    "Match",
    "Moment",
    "Moved",
    "Problem",
    "SQLSaver",
    "SizeReport",
    "ToolJournal",
    "Transcript",
    "import_langgraph_postgres",
    "import_langgraph_sqlite",
    "list_conversations",
    "open_checkpointer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
