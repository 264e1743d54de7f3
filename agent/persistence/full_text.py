"""Full-text search, where SQLite and PostgreSQL have nothing in common but the table that is searched.

Triggers (SQLite) and a generated column (PostgreSQL) keep the index in step with ``message_texts``; deleting
a row there takes it out of the index.

Both take what stands between blanks for a word, and some scripts put none: to them, a sentence of Chinese is
one word. Every character of such a script is therefore made a word of its own, in the texts that are indexed
and in the words that are asked for: these are then a phrase, which is found anywhere.
PostgreSQL knows the places of the first 16,383 words of a text, and 256 of each word: of a very long message,
it finds a phrase in the beginning only.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_INDEXED: Final = 200_000
"""Characters of a message that can be found: PostgreSQL refuses to store an index entry above 1 MiB."""

_MARKS: Final = r"[\u0300-\u036F]"
"""Accents, once a text is decomposed; as a regular expression for Python and for PostgreSQL."""

_UNBROKEN: Final = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3005-\u3007\u3031-\u3035\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese
    "\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese
    "\uac00-\ud7a3"  # Korean, which has blanks, but puts endings to its words without one
)
"""Characters of scripts without blanks between words."""
_BESIDE_ONE: Final = re.compile(rf"(?<=[{_UNBROKEN}])(?=\S)|(?<=\S)(?=[{_UNBROKEN}])")
_BORDER: Final = "\x1f"
"""Stands between two words without a blank: nobody writes it, and neither database takes it for a letter."""

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
        '\'StartSel="", StopSel="", MaxFragments=1, MaxWords=16, MinWords=8, ShortWord=0\') '
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


def divided(text: str) -> str:
    """A text as it is indexed: with borders around the characters of scripts that have no blanks."""
    if text.isascii():
        return text
    # In one piece, as most write them: a Korean syllable or a Japanese sound can also be in its parts.
    return _BESIDE_ONE.sub(_BORDER, unicodedata.normalize("NFC", text))


def whole(text: str) -> str:
    """A part of an indexed text as it was written."""
    return text.replace(_BORDER, "")


def query(dialect: str, words: str) -> str:
    """What a person typed as a query without syntax errors: every word, the last one as a beginning."""
    # A blank in their place: the index has «don't» as two words, one after the other.
    quoted = [re.sub(r"[\"'\\\x00]", " ", word).strip() for word in words.split()]
    quoted = [divided(word) for word in quoted if any(map(str.isalnum, word))]
    if dialect == "postgresql":
        quoted = [re.sub(_MARKS, "", unicodedata.normalize("NFKD", word)) for word in quoted]
        return " & ".join(f"'{word}'" for word in quoted) + (":*" if quoted else "")
    return " ".join(f'"{word}"' for word in quoted) + ("*" if quoted else "")
