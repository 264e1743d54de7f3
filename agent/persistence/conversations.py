"""Browsing and keeping conversations: what a person wants to do with them, apart from talking."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Select, delete, func, select, text, update
from sqlalchemy.sql import ClauseElement

from agent.errors import ConfigurationError, DatabaseError, ThreadNotFoundError
from agent.persistence import (
    checkup,
    export,
    full_text,
    given,
    maintenance,
    moments,
    moving,
    overview,
    pruning,
)
from agent.persistence.checkup import Problem
from agent.persistence.dialects import from_json, insert
from agent.persistence.locations import database_files
from agent.persistence.moments import Difference, Moment
from agent.persistence.overview import Conversation, Listed
from agent.persistence.records import TITLE_LENGTH, Address, storable, title_of
from agent.persistence.reports import Match, Moved, SizeReport, Transcript
from agent.persistence.saver import SQLSaver
from agent.persistence.tables import checkpoints, thread_tags, threads
from agent.persistence.transactions import Record, Transaction
from agent.persistence.transcripts import add_messages, index_messages, messages_at, messages_now

_LONGEST_NUMBER = 7
"""Digits of a checkpoint's number; more are the beginning of an id."""


class ConversationStore:
    """The conversations of one database.

    Every ``thread_id`` may be a beginning of one that no other shares.

    Args:
        saver: From :func:`agent.persistence.open_checkpointer`, open.

    Raises:
        ConfigurationError: It is something else. So is, to each method, a number where it wants a text.
    """

    def __init__(self, saver: SQLSaver) -> None:
        if not isinstance(saver, SQLSaver):
            raise ConfigurationError(f"ConversationStore({saver!r}): give the saver of open_checkpointer()")
        self._database = saver.database
        self.saver = saver
        """The saver whose conversations these are."""
        self._serde = saver.serde

    # Looking

    def list(self, *, limit: int = 50, offset: int = 0, tag: str | None = None) -> Sequence[Conversation]:
        """Conversations, the last used first. No history is read, except where a count is unknown."""
        return self._completed(overview.newest(limit=limit, offset=offset, tag=tag))

    def latest(self) -> Conversation | None:
        """The conversation that was used last; ``None`` if there is none."""
        return next(iter(self.list(limit=1)), None)

    def entry(self, thread_id: str) -> Conversation:
        """What the list shows of a conversation, which may be damaged.

        Raises:
            ThreadNotFoundError: There is none.
        """
        thread_id = self.resolve(thread_id)
        for found in self._completed(overview.every().where(threads.c.thread_id == thread_id)):
            return found
        raise ThreadNotFoundError(f"there is no conversation {thread_id!r} any more")

    def get(self, thread_id: str, *, checkpoint_id: str | None = None) -> Transcript:
        """A conversation with its messages, now or at an earlier checkpoint.

        Raises:
            ThreadNotFoundError: There is none, or it has no such checkpoint.
        """
        thread_id = self.resolve(thread_id)
        listed = overview.rows(self._database, overview.every().where(threads.c.thread_id == thread_id))
        address = Address(thread_id, "", checkpoint_id)
        found = self._database.read(lambda transaction: messages_at(transaction, self._serde, address))
        if not listed or (found is None and checkpoint_id is not None):
            which = "any more" if checkpoint_id is None else repr(checkpoint_id)
            raise ThreadNotFoundError(f"conversation {thread_id!r} has no checkpoint {which}")
        at, messages = found or ("", [])
        known = {"message_count": len(messages), "title": listed[0].title or title_of(messages)}
        return Transcript(**(vars(listed[0]) | known), checkpoint_id=at, messages=tuple(messages))

    def title(self, thread_id: str) -> str | None:
        """What a conversation is called, without reading it."""
        found = overview.rows(self._database, overview.every().where(threads.c.thread_id == thread_id))
        return found[0].title if found else None

    def label(self, thread_id: str, name: str) -> str | None:
        """What the run that wrote the newest checkpoint was labelled with, in its config's ``metadata``.

        Args:
            thread_id: The whole id.
            name: The label's name.
        """
        own = (checkpoints.c.thread_id == thread_id, checkpoints.c.ns == "")
        newest = select(checkpoints.c.metadata).where(*own).order_by(checkpoints.c.checkpoint_id.desc())
        found = [from_json(row[0]).get(name) for row in self._read(newest.limit(1))]
        return found[0] if found and isinstance(found[0], str) else None

    def resolve(self, prefix: str) -> str:
        """The thread id that begins so.

        Raises:
            ThreadNotFoundError: None does, or several do; the message names close ones.
        """
        prefix = str(prefix)
        begins = func.substr(threads.c.thread_id, 1, len(prefix)) == prefix  # SQLite's LIKE takes A for a
        statement = select(threads.c.thread_id).where(begins).order_by(threads.c.thread_id).limit(4)
        found = [row[0] for row in self._read(statement)]
        if prefix and (prefix in found or len(found) == 1):
            return prefix if prefix in found else str(found[0])
        if found:
            raise ThreadNotFoundError(f"{prefix!r} begins several conversations: {', '.join(found)} …")
        raise ThreadNotFoundError(f"no conversation {prefix!r}.{overview.suggestion(self._database, prefix)}")

    def search(self, words: str, *, limit: int = 20) -> Sequence[Match]:
        """Messages that contain all of these words, best first; the last may be a beginning.

        Raises:
            ConfigurationError: The conversations are encrypted; an index would give them away.
        """
        if self.saver.encrypted:
            raise ConfigurationError(
                "encrypted conversations cannot be searched: an index of their words would give them away"
            )
        words, limit = given.words("words", words), given.number("limit", limit)
        query = full_text.query(self._database.dialect, words)
        if not query:
            return []
        index_messages(self._database, self._serde)
        statement = text(full_text.QUERY[self._database.dialect]).bindparams(query=query, limit=limit)
        return [Match(own, at, role, full_text.whole(said)) for own, at, role, said in self._read(statement)]

    def checkpoints(self, thread_id: str) -> Sequence[str]:
        """The checkpoints of a conversation, newest first; :meth:`get`, :meth:`fork` and others take them."""
        thread_id = self.resolve(thread_id)
        statement = (
            select(checkpoints.c.checkpoint_id)
            .where(checkpoints.c.thread_id == thread_id, checkpoints.c.ns == "")
            .order_by(checkpoints.c.checkpoint_id.desc())
        )
        return [row[0] for row in self._read(statement)]

    def history(self, thread_id: str, *, limit: int = 50) -> Sequence[Moment]:
        """The checkpoints of a conversation, newest first, with what was said last at each."""
        thread_id, limit = self.resolve(thread_id), given.number("limit", limit)
        look = partial(moments.moments, serde=self._serde, thread_id=thread_id, limit=limit)
        return self._database.read(look)

    def resolve_checkpoint(self, thread_id: str, which: str) -> str:
        """The checkpoint that a person means.

        Args:
            thread_id: Of which conversation.
            which: An id, the beginning of one, a number as in :meth:`history`, or ``latest``.

        Raises:
            ThreadNotFoundError: There is none such, or several.
        """
        known = self.checkpoints(thread_id)
        if which == "latest" and known:
            return known[0]
        if which.isdecimal() and len(which) <= _LONGEST_NUMBER and 1 <= int(which) <= len(known):
            return known[-int(which)]
        found = [each for each in known if which and each.startswith(which)]
        if len(found) == 1:
            return found[0]
        wrong = "several checkpoints that begin with" if found else "no checkpoint"
        raise ThreadNotFoundError(
            f"conversation {self.resolve(thread_id)!r} has {wrong} {which!r}: it has the numbers 1 to "
            f"{len(known)}, and `vllm-agent threads history` shows them"
        )

    def diff(self, thread_id: str, before: str, after: str) -> Difference:
        """What is different at the second of two checkpoints.

        Raises:
            ThreadNotFoundError: There is no such conversation or checkpoint.
        """
        thread_id = self.resolve(thread_id)
        states = []
        for checkpoint_id in (before, after):
            address = Address(thread_id, "", checkpoint_id)
            found = self._database.read(partial(moments.state_at, serde=self._serde, address=address))
            if found is None:
                raise ThreadNotFoundError(f"conversation {thread_id!r} has no checkpoint {checkpoint_id!r}")
            states.append(found)
        return moments.differences(*states, ids=(before, after))

    def export(self, thread_id: str, *, format: str = "markdown") -> str:
        """A conversation as text.

        Args:
            thread_id: Which one.
            format: ``markdown``, ``json`` or ``jsonl``.

        Raises:
            ConfigurationError: Another format.
            ThreadNotFoundError: There is none.
        """
        if format not in export.FORMATS:
            raise ConfigurationError(f"export format {format!r}: use {', '.join(export.FORMATS)}")
        return export.FORMATS[format](self.get(thread_id))

    # Changing

    def rename(self, thread_id: str, title: str) -> None:
        """Give a conversation a title; an empty one brings the automatic title back."""
        thread_id, words = self.resolve(thread_id), storable(given.words("title", title)).split()
        found = None if words or self.saver.encrypted else title_of(self.get(thread_id).messages)
        shown = " ".join(words)[: 2 * TITLE_LENGTH] or found
        self._write(update(threads).where(threads.c.thread_id == thread_id).values(title=shown))

    def tag(self, thread_id: str, *tags: str) -> None:
        """Add tags."""
        thread_id = self.resolve(thread_id)
        for tag in map(storable, [*map(given.tag, tags)]):
            values = {"thread_id": thread_id, "tag": tag}
            self._write(insert(self._database.dialect, thread_tags).values(values).on_conflict_do_nothing())

    def untag(self, thread_id: str, *tags: str) -> None:
        """Take tags away."""
        own = thread_tags.c.thread_id == self.resolve(thread_id)
        going = thread_tags.c.tag.in_([storable(given.tag(tag)) for tag in tags])
        self._write(delete(thread_tags).where(own, going))

    def delete(self, thread_id: str, *, vacuum: bool = False) -> None:
        """Delete a conversation with its history, journal and search entries.

        Args:
            thread_id: Which one.
            vacuum: Rewrite the file as well: it shrinks, and nothing of the conversation is left in it.
        """
        self.saver.delete_thread(self.resolve(thread_id))
        if vacuum:
            self.vacuum()

    def vacuum(self) -> None:
        """Give back the space of what was deleted. It takes as long as copying the file."""
        for statement in full_text.FORGET[self._database.dialect]:
            self._database.outside_transaction(statement)

    def fork(self, thread_id: str, *, checkpoint_id: str | None = None, new_id: str | None = None) -> str:
        """Copy a conversation as it was at a checkpoint (now, if none is given) and return the copy's id.

        Raises:
            ThreadNotFoundError: There is none, or it has no such checkpoint.
            ConflictError: ``new_id`` is taken.
        """
        source, target = self.resolve(thread_id), new_id or str(uuid.uuid4())
        self._require(source, checkpoint_id)

        def work(transaction: Transaction) -> None:
            maintenance.copy(transaction, source, target)
            if checkpoint_id is not None:
                maintenance.cut(transaction, self._serde, target, checkpoint_id)

        self._database.write(work)
        return target

    def rewind(self, thread_id: str, checkpoint_id: str) -> None:
        """Go back to a checkpoint, for good: what came after it is deleted.

        Raises:
            ThreadNotFoundError: There is none, or it has no such checkpoint.
        """
        thread_id = self.resolve(thread_id)
        self._require(thread_id, checkpoint_id)
        cut = partial(maintenance.cut, serde=self._serde, thread_id=thread_id, checkpoint_id=checkpoint_id)
        self._database.write(cut)

    def prune(
        self,
        *,
        older_than: str | datetime | timedelta | None = None,
        keep: int | None = None,
        max_bytes: int | None = None,
        history_only: bool = False,
        dry_run: bool = False,
    ) -> Sequence[str]:
        """Delete conversations, or only their history, and return their ids, the last used first.

        Given several conditions, a conversation has to meet all of them.

        Args:
            older_than: Those last used before this time (text is ISO 8601 in UTC), or longer ago than this.
            keep: All but this many of the last used.
            max_bytes: The least recently used, until the values of the rest take no more than this.
            history_only: Keep each conversation as it is now, and delete its earlier checkpoints.
            dry_run: Only say which.

        Raises:
            ConfigurationError: No condition, or a negative number.
        """
        statement = select(threads.c.thread_id, threads.c.updated_at).order_by(threads.c.updated_at.desc())
        sizes = None
        if max_bytes is not None:
            sizes = dict(self._database.read(partial(maintenance.largest, count=None)))
        used = [(str(row[0]), str(row[1])) for row in self._read(statement)]
        chosen = pruning.choose(used, older_than=older_than, keep=keep, sizes=sizes, max_bytes=max_bytes)
        if not dry_run:
            self.prune_these(chosen, history_only=history_only)
        return chosen

    def prune_these(self, thread_ids: Sequence[str], *, history_only: bool = False) -> None:
        """Delete these conversations, or only their history; the ids are whole ones."""
        self.saver.prune(thread_ids, strategy="keep_latest" if history_only else "delete")

    def doctor(self, *, mend: bool = False) -> Sequence[Problem]:
        """What is wrong with the database and its conversations; an empty list if nothing is.

        Args:
            mend: Remove rows that belong to nothing, bring the list up to date, index for searching anew.
                What somebody said is never changed.
        """
        return checkup.examine(self._database, self._serde, mend=mend)

    def copy_to(self, other: ConversationStore) -> Moved:
        """Copy every conversation, with its history, into another database; of either kind.

        Raises:
            ConfigurationError: Only one of the two is encrypted, or the other with another key.
        """
        if self.saver.encrypted != other.saver.encrypted:
            raise ConfigurationError(
                "values are copied as they are stored: open both with the cipher, or none"
            )
        done = moving.copy_all(self._database, other._database, here=self._serde, there=other._serde)
        return Moved(copied=done[0], skipped=done[1])

    def size(self) -> SizeReport:
        """What the conversations take up."""
        if self._database.dialect == "postgresql":
            on_disk = int(self._read(select(func.pg_database_size(func.current_database())))[0][0])
        else:
            on_disk = sum(path.stat().st_size for path in database_files(self._database.url))
        return SizeReport(
            conversations=int(self._read(select(func.count()).select_from(threads))[0][0]),
            checkpoints=int(self._read(select(func.count()).select_from(checkpoints))[0][0]),
            bytes_on_disk=on_disk,
            largest=self._database.read(maintenance.largest),
        )

    def import_(self, document: str, *, new_id: str | None = None) -> str:
        """Make a conversation of one that was exported as JSON or JSONL, and return its id.

        Raises:
            ConfigurationError: It is neither.
            ConflictError: ``new_id`` is taken.
        """
        parsed, thread_id = export.parse(given.words("document", document)), new_id or str(uuid.uuid4())
        add_messages(self.saver, thread_id, parsed.messages)
        if parsed.title and not (self.saver.encrypted and parsed.title == title_of(parsed.messages)):
            self.rename(thread_id, parsed.title)
        self.tag(thread_id, *parsed.tags)
        return thread_id

    # Parts

    def _read(self, statement: ClauseElement) -> Sequence[Record]:
        return self._database.read(lambda transaction: transaction.once(statement))

    def _write(self, statement: ClauseElement) -> None:
        self._database.write(lambda transaction: transaction.once(statement))

    def _completed(self, statement: Select[Any]) -> Sequence[Conversation]:
        return [row.complete() or self._counted(row) for row in overview.rows(self._database, statement)]

    def _counted(self, row: Listed) -> Conversation:
        """Read the messages of a conversation that the table does not know all about, and note the answer."""
        read = self._database.read(lambda each: messages_now(each, self._serde, row.id, doing="counted"))
        count, title = len(read or ()), row.title or title_of(read or ())
        known = {"messages": count} | ({} if self.saver.encrypted else {"title": title})
        unchanged = (threads.c.thread_id == row.id, threads.c.updated_at == row.updated_at)
        with contextlib.suppress(DatabaseError):  # a read-only file can be listed all the same
            if read is not None:
                self._write(update(threads).where(*unchanged).values(known))
        return Conversation(**(vars(row) | {"message_count": count, "title": title}))

    def _require(self, thread_id: str, checkpoint_id: str | None) -> None:
        if checkpoint_id is not None and checkpoint_id not in self.checkpoints(thread_id):
            raise ThreadNotFoundError(f"conversation {thread_id!r} has no checkpoint {checkpoint_id!r}")
