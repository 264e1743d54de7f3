"""Statements to PostgreSQL in bundles: what nobody waits for yet goes to the server in one piece.

A cursor of psycopg sends each statement as soon as it has it, which for small statements is most of their
time, here and on the server. This is the same on psycopg's layer below: libpq's pipeline mode, its prepared
statements, its conversions. A read or a write of the saver takes two or three pieces in the place of a dozen.

What is sent up to a synchronisation is a transaction by itself: one that writes needs no BEGIN and no COMMIT.
"""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from collections.abc import Generator, Iterable
from typing import Any

from psycopg import errors
from psycopg.adapt import PyFormat, Transformer
from psycopg.generators import fetch_many, send
from psycopg.pq import ExecStatus, Format

from agent.persistence.transactions import Parameters, Record

_PREPARED = 200
"""Statements that a connection keeps prepared."""
_PARAMETER = re.compile(r"%(?:\((\w+)\)s|%)")


class Prepared:
    """Names of the statements that a connection has prepared; it lives as long as that."""

    def __init__(self) -> None:
        self._names: OrderedDict[tuple[bytes, tuple[int, ...]], bytes] = OrderedDict()
        self._given = 0

    def name(self, key: tuple[bytes, tuple[int, ...]]) -> bytes | None:
        """The name of a statement with parameters of these types, if it is prepared."""
        name = self._names.get(key)
        if name is not None:
            self._names.move_to_end(key)
        return name

    def add(self, key: tuple[bytes, tuple[int, ...]]) -> bytes:
        """A name for it that was never used before."""
        self._given += 1
        name = self._names[key] = b"vllm_agent_%d" % self._given
        return name

    def surplus(self) -> bytes | None:
        """The name of one that was not used for long, if there are too many; it is forgotten."""
        return self._names.popitem(last=False)[1] if len(self._names) > _PREPARED else None

    def forget(self, keys: Iterable[tuple[bytes, tuple[int, ...]]]) -> None:
        """It is not certain that the server has these: it gets them again, under other names."""
        for key in keys:
            self._names.pop(key, None)


class Asked:
    """A statement on its way, or what came of it."""

    __slots__ = ("result",)

    def __init__(self) -> None:
        self.result: Any = None


class Pipeline:
    """One transaction's statements on one connection.

    Args:
        connection: Of psycopg, with nothing under way.
        prepared: What was prepared on it.

    Raises:
        psycopg.OperationalError: The connection is gone.
    """

    def __init__(self, connection: Any, prepared: Prepared) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._prepared = prepared
        self._transformer = Transformer(connection)
        self._calls: list[Any] = []
        self._expected: list[Asked | None] = []
        self._new: list[tuple[bytes, tuple[int, ...]]] = []
        self.touched = False
        """Whether the server was sent anything."""
        self._pgconn.enter_pipeline_mode()

    def ask(self, statement: str, parameters: Parameters | None = None, *, prepare: bool = True) -> Asked:
        """Take a statement on; it goes with the next piece."""
        text, names = _positional(statement)
        values = [parameters[name] for name in names] if parameters else []
        dumped = self._transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        types, formats = self._transformer.types or (), self._transformer.formats
        asked = Asked()
        if not prepare:
            self._later(asked, self._pgconn.send_query_params, text, dumped, types, formats, Format.BINARY)
            return asked
        key = text, tuple(types)
        name = self._prepared.name(key)
        if name is None:
            name = self._prepared.add(key)
            self._new.append(key)
            self._later(None, self._pgconn.send_prepare, name, text, types)
            if surplus := self._prepared.surplus():
                self._later(None, self._pgconn.send_query_params, b"DEALLOCATE " + surplus, None)
        self._later(asked, self._pgconn.send_query_prepared, name, dumped, formats, Format.BINARY)
        return asked

    def rows(self, asked: Asked) -> list[Record]:
        """The rows of a statement, which is sent now if it was not before; none if it returns none."""
        result = self._result(asked)
        if result.status != ExecStatus.TUPLES_OK:
            return []
        self._transformer.set_pgresult(result, set_loaders=True, format=Format.BINARY)
        rows: list[Record] = self._transformer.load_rows(0, result.ntuples, tuple)
        return rows

    def changed(self, asked: Asked) -> int:
        """How many rows a statement changed."""
        return self._result(asked).command_tuples or 0

    def end(self) -> None:
        """Send what is left, which commits it, and leave the pipeline."""
        if self._calls or self.touched:
            self._exchange(end=True)
        self._pgconn.exit_pipeline_mode()

    def abandon(self) -> None:
        """Undo what was sent, send nothing of the rest, and leave the pipeline."""
        self._calls.clear()
        self._expected.clear()
        self._prepared.forget(self._new)
        if self.touched:
            for statement in (b"BEGIN", b"ROLLBACK"):  # what was sent before becomes a part of it
                self._later(None, self._pgconn.send_query_params, statement, None)
            self._exchange(end=True, failing=True)
        self._pgconn.exit_pipeline_mode()

    def _later(self, asked: Asked | None, call: Any, *arguments: Any) -> None:
        self._calls.append((call, arguments))
        self._expected.append(asked)

    def _result(self, asked: Asked) -> Any:
        if asked.result is None:
            self._exchange()
        return asked.result

    def _exchange(self, *, end: bool = False, failing: bool = False) -> None:
        """Send what was asked in one piece and receive all of it, or raise the first error."""
        expected, self._expected = self._expected, []
        calls, self._calls = self._calls, []
        self.touched = True

        for call, arguments in calls:
            call(*arguments)
        if end:
            self._pgconn.pipeline_sync()
        else:
            self._pgconn.send_flush_request()
        answers = self._connection.wait(self._communicate(len(expected), end=end))
        for answer in answers:  # also one that no statement has: what fails at the very end is the commit
            if answer.status in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED) and not failing:
                raise errors.error_from_result(answer)
        for asked, answer in zip(expected, answers, strict=False):
            if asked is not None:
                asked.result = answer

    def _communicate(self, count: int, *, end: bool) -> Generator[Any, Any, list[Any]]:
        yield from send(self._pgconn)  # receives as well, so that neither side waits for the other
        answers: list[Any] = []
        while len(answers) < count or (end and not _is_sync(answers)):
            results = yield from fetch_many(self._pgconn)
            if not results:
                raise errors.OperationalError("the server stopped in the middle of its answers")
            answers.append(results[-1])
        return answers


def _is_sync(answers: list[Any]) -> bool:
    return bool(answers) and answers[-1].status == ExecStatus.PIPELINE_SYNC


@functools.lru_cache(maxsize=1024)
def _positional(statement: str) -> tuple[bytes, tuple[str, ...]]:
    """A statement with named parameters (psycopg's) as one with numbers (PostgreSQL's), and their names."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        name = found[1]
        return "%" if name is None else f"${names.setdefault(name, len(names) + 1)}"

    return _PARAMETER.sub(number, statement).encode(), tuple(names)
