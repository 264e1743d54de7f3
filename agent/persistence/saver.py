"""The LangGraph saver: conversations on SQLite or PostgreSQL, sync and async, shared by threads and loops."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from sqlalchemy import ColumnElement

from agent.errors import ConfigurationError, DatabaseError, PersistenceError
from agent.persistence import history, maintenance, reading
from agent.persistence import statements as sql
from agent.persistence.database import Database
from agent.persistence.dialects import metadata_matches
from agent.persistence.heads import Heads
from agent.persistence.journal import ToolJournal
from agent.persistence.records import Address, configurable_of
from agent.persistence.tables import checkpoints
from agent.persistence.turns import Turn, claim
from agent.persistence.writing import CheckpointWriter

WriteObserver: TypeAlias = Callable[[str, RunnableConfig], AbstractContextManager[None]]

_PAGE = 50
_VERSION_DIGITS = 32


class SQLSaver(BaseCheckpointSaver[str]):
    """Keeps the conversations of a LangGraph graph in one database.

    Open one with :func:`agent.persistence.open_checkpointer`. Every method has a sync and an async form that
    do the same; both may be called from any thread and any event loop.

    Args:
        database: The opened database.
        serde: How values become bytes; see :class:`agent.persistence.serde.StrictSerializer`.
    """

    def __init__(self, database: Database, *, serde: SerializerProtocol) -> None:
        super().__init__(serde=serde)
        self.database = database
        self.observer: WriteObserver | None = None
        """Gives what is put around each ``put`` and ``put_writes``, sync or async, from the method's name and
        its config; for traces and metrics (:class:`agent.telemetry.RunObserver`)."""
        self.journal = ToolJournal(database, serde=self.serde)
        self.encrypted = isinstance(serde, EncryptedSerializer)
        self._heads = Heads()
        self._outlines = history.Outlines(self.serde)
        self.writer = CheckpointWriter(
            serde=self.serde, dialect=database.dialect, heads=self._heads, titles=not self.encrypted
        )

    # Reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Load one checkpoint: the one that ``config`` names, else the newest of its thread."""
        address = Address.of(config)
        row = self.database.read(lambda transaction: reading.fetch(transaction, self.serde, address))
        if address.checkpoint_id is None:
            self._heads.follow(address.thread_id, address.ns, row.checkpoint_id if row else None)
        else:
            self._heads.name(address.thread_id, address.ns, address.checkpoint_id)
        return row.decode() if row else None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Load checkpoints, newest first, page by page: three or four queries a page, however many rows."""
        conditions = self._conditions(config, metadata=filter, before=before)
        after: tuple[str, str, str] | None = None
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            found = self._page(conditions, size=size, after=after, by_name=before is not None)
            yield from found
            if len(found) < size:
                return
            after = _page_key(found[-1])
            left = None if left is None else left - size

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Collect what ``DeltaChannel`` needs: each channel's nearest stored value and the writes since."""
        address = Address.of(config)
        return self.database.read(
            lambda transaction: history.collect(transaction, self._outlines, address, channels=channels)
        )

    # Writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; what it shares with earlier ones is not stored again.

        Raises:
            ConflictError: Another writer has continued the thread from the same checkpoint.
        """
        with self._observed("put", config):
            self.database.write(self.writer.checkpoint(config, checkpoint, metadata, new_versions))
        return self._stored(config, checkpoint)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what one task of the next step has written, so that a resumed run need not run it again."""
        with self._observed("put_writes", config):
            self.database.write(self.writer.writes(config, writes, task_id, task_path))

    # Whole threads

    def delete_thread(self, thread_id: str) -> None:
        """Delete everything of a thread, its tool journal included."""
        self.database.write(lambda transaction: maintenance.delete(transaction, str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that these runs made, except those a remaining one is rebuilt from."""
        self.database.write(lambda transaction: maintenance.delete_runs(transaction, self.serde, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread whole: every namespace, the whole parent chain, its writes and tool journal.

        Raises:
            ConflictError: There is a thread of the target's name.
        """
        source, target = str(source_thread_id), str(target_thread_id)
        self.database.write(lambda transaction: maintenance.copy(transaction, source, target))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Drop history.

        Args:
            thread_ids: The threads to prune.
            strategy: ``keep_latest`` keeps the newest checkpoint of each namespace, and the ancestors that
            its
                ``DeltaChannel`` values are rebuilt from; ``delete`` keeps nothing.

        Raises:
            ConfigurationError: Another strategy.
            PersistenceError: Some are damaged and keep their history; that of the others was dropped.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ConfigurationError(f"prune strategy {strategy!r}: use 'keep_latest' or 'delete'")
        damaged = []
        for thread_id in map(str, thread_ids):
            if strategy == "delete":
                self.delete_thread(thread_id)
                continue
            try:
                self.database.write(partial(maintenance.keep_latest, serde=self.serde, thread_id=thread_id))
            except DatabaseError:
                raise  # of the database, which the next one would meet too
            except PersistenceError as error:
                damaged.append(str(error))
        if damaged:
            raise PersistenceError("; ".join(damaged))

    def turn(self, thread_id: str, *, timeout: float = 30.0) -> Turn:
        """Claim a conversation for a run: others who claim it wait, in this process and in others.

        Use it as ``with`` or ``async with`` around ``graph.invoke`` and the like. Without it, of two runs on
        one conversation one wins and the other gets a :class:`ConflictError`.

        Args:
            thread_id: Which one.
            timeout: Seconds to wait for another run to end; 0 to give up at once.

        Raises:
            ConflictError: On entry: another run still holds it.
            DatabaseError: On entry: it cannot be claimed, for example beside a file that can only be read.
        """
        return claim(self.database, str(thread_id), timeout=timeout)

    def get_next_version(self, current: Any, channel: None) -> str:
        """The next version of a channel: a number that sorts as text, and what keeps two forks apart.

        As many digits as LangGraph's own savers use. LangGraph's server puts versions of that form into the
        conversations that it continues, and a shorter number would sort above every one of them: what is
        said there would look older than what was said before, and be passed over.
        """
        digits = str(current or 0).split(".")[0]
        width = (
            len(digits) if isinstance(current, str) else _VERSION_DIGITS
        )  # threads keep the form they have
        return f"{int(digits) + 1:0{width}}.{secrets.token_hex(5)}"

    # Async twins

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Async form of :meth:`get_tuple`."""
        return await self.database.run(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Async form of :meth:`list`."""
        pages = self.list(config, filter=filter, before=before, limit=limit)
        while batch := await self.database.run(_take, pages, _PAGE):
            for found in batch:
                yield found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Async form of :meth:`get_delta_channel_history`."""
        return await self.database.run(self.get_delta_channel_history, config=config, channels=channels)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Async form of :meth:`put`."""
        with self._observed("put", config):
            await self.database.awrite(
                lambda: self.writer.checkpoint(config, checkpoint, metadata, new_versions)
            )
        return self._stored(config, checkpoint)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Async form of :meth:`put_writes`."""
        with self._observed("put_writes", config):
            await self.database.awrite(lambda: self.writer.writes(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        """Async form of :meth:`delete_thread`."""
        await self.database.run(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Async form of :meth:`delete_for_runs`."""
        await self.database.run(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Async form of :meth:`copy_thread`."""
        await self.database.run(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Async form of :meth:`prune`."""
        await self.database.run(self.prune, thread_ids, strategy=strategy)

    # Parts

    def _observed(self, method: str, config: RunnableConfig) -> AbstractContextManager[None]:
        return nullcontext() if self.observer is None else self.observer(method, config)

    def _stored(self, config: RunnableConfig, checkpoint: Checkpoint) -> RunnableConfig:
        address = Address.of(config)
        self._heads.follow(address.thread_id, address.ns, checkpoint["id"])
        stored_config = address.config(checkpoint["id"])
        stored_config["configurable"]["thread_id"] = config["configurable"]["thread_id"]
        return stored_config

    def _conditions(
        self,
        config: RunnableConfig | None,
        *,
        metadata: Mapping[str, Any] | None,
        before: RunnableConfig | None,
    ) -> Sequence[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        if config is not None:
            configurable = configurable_of(config)
            conditions.append(checkpoints.c.thread_id == str(configurable["thread_id"]))
            if (ns := configurable.get("checkpoint_ns")) is not None:
                conditions.append(checkpoints.c.ns == ns)
            if checkpoint_id := get_checkpoint_id(config):
                conditions.append(checkpoints.c.checkpoint_id == checkpoint_id)
        if before is not None and (last := get_checkpoint_id(before)):
            conditions.append(checkpoints.c.checkpoint_id < last)
        if metadata:
            conditions.extend(metadata_matches(self.database.dialect, metadata))
        return conditions

    def _page(
        self,
        conditions: Sequence[ColumnElement[bool]],
        *,
        size: int,
        after: tuple[str, str, str] | None,
        by_name: bool,
    ) -> Sequence[CheckpointTuple]:
        statement = sql.page(conditions, size=size, after=after)
        rows = self.database.read(
            lambda transaction: reading.complete(transaction, self.serde, transaction.once(statement))
        )
        if by_name:  # how a replayed subgraph finds the state that it is to fork from
            for row in rows:
                self._heads.name(row.thread_id, row.ns, row.checkpoint_id)
        return [row.decode() for row in rows]


def _page_key(found: CheckpointTuple) -> tuple[str, str, str]:
    configurable = found.config["configurable"]
    return configurable["checkpoint_id"], configurable["thread_id"], configurable["checkpoint_ns"]


def _take(source: Iterator[CheckpointTuple], count: int) -> Sequence[CheckpointTuple]:
    return [*itertools.islice(source, count)]
