"""Full-text search, where SQLite and PostgreSQL have nothing in common but the table that is searched.

Triggers (SQLite) and a generated column (PostgreSQL) keep the index in step with ``message_texts``; deleting
a row there takes it out of the index.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_INDEXED: Final = 200_000
"""Characters of a message that can be found: PostgreSQL refuses to store an index entry above 1 MiB."""

_MARKS: Final = r"[\u0300-\u036F]"
"""Accents, once a text is decomposed; as a regular expression for Python and for PostgreSQL."""

DDL: Final = {
    "sqlite": (
        "CREATE VIRTUAL TABLE message_index USING fts5(text, content='message_texts', content_rowid='id', "
        "tokenize='unicode61 remove_diacritics 2')",
        "CREATE TRIGGER message_texts_added AFTER INSERT ON message_texts BEGIN "
        "INSERT INTO message_index(rowid, text) VALUES (new.id, new.text); END",
        "CREATE TRIGGER message_texts_removed AFTER DELETE ON message_texts BEGIN "
        "INSERT INTO message_index(message_index, rowid, text) VALUES ('delete', old.id, old.text); END",
    ),
    "postgresql": (
        "ALTER TABLE message_texts ADD COLUMN indexed tsvector GENERATED ALWAYS AS "
        f"(to_tsvector('simple', regexp_replace(normalize(left(text, {_INDEXED}), NFKD), "
        f"'{_MARKS}', '', 'g'))) STORED",
        "CREATE INDEX message_texts_indexed ON message_texts USING gin (indexed)",
    ),
}

QUERY: Final = {
    "sqlite": (
        "SELECT m.thread_id, m.position, m.role, snippet(message_index, 0, '', '', '…', 16) "
        "FROM message_index JOIN message_texts m ON m.id = message_index.rowid "
        "WHERE message_index MATCH :query ORDER BY rank LIMIT :limit"
    ),
    "postgresql": (
        "SELECT m.thread_id, m.position, m.role, ts_headline('simple', m.text, q, "
        '\'StartSel="", StopSel="", MaxFragments=1, MaxWords=16, MinWords=8\') '
        "FROM message_texts m, to_tsquery('simple', :query) q "
        "WHERE m.indexed @@ q ORDER BY ts_rank(m.indexed, q) DESC LIMIT :limit"
    ),
}

FORGET: Final = {
    "sqlite": ("INSERT INTO message_index(message_index) VALUES ('optimize')", "VACUUM"),
    "postgresql": (
        "VACUUM (FULL) threads, thread_tags, checkpoints, channels, items, writes, tool_calls, message_texts",
    ),
}
"""What makes deleted text unreadable in the files, and gives their space back."""

CHECK: Final = {
    "sqlite": "INSERT INTO message_index(message_index, rank) VALUES ('integrity-check', 1)",
    "postgresql": None,
}
"""Fails if the index does not fit what it is made of. In PostgreSQL it cannot but fit."""

REBUILD: Final = {
    "sqlite": "INSERT INTO message_index(message_index) VALUES ('rebuild')",
    "postgresql": None,
}


def query(dialect: str, words: str) -> str:
    """What a person typed as a query without syntax errors: every word, the last one as a beginning."""
    # A blank in their place: the index has «don't» as two words, one after the other.
    quoted = [re.sub(r"[\"'\\\x00]", " ", word).strip() for word in words.split()]
    quoted = [word for word in quoted if any(map(str.isalnum, word))]
    if dialect == "postgresql":
        quoted = [re.sub(_MARKS, "", unicodedata.normalize("NFKD", word)) for word in quoted]
        return " & ".join(f"'{word}'" for word in quoted) + (":*" if quoted else "")
    return " ".join(f'"{word}"' for word in quoted) + ("*" if quoted else "")
