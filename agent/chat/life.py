"""The life of a model, whatever it is a model of: started, closed, used with ``with``, pickled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from agent.chat.session import Session
    from agent.engines.base import EngineInfo


class HoldsEngine:
    """For models with a ``_session`` and an ``engine`` that may be given.

    It stands before their other parents, whose ways of being copied know nothing of engines.
    """

    _not_copied: ClassVar[frozenset[str]]
    """Arguments that another process has its own of."""

    if TYPE_CHECKING:
        _session: Session
        engine: Any
        model_fields_set: set[str]

        def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
            """Pydantic's."""

    def start(self) -> EngineInfo:
        """Start the engine now, in the place of with the first call, and say what it is."""
        return self._session.loop.run(self._session.started())[1]

    def close(self) -> None:
        """Give the engine back; the last model on it frees its memory. May be called twice."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)  # seconds, where it frees the engine

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy the arguments; however a copy is made in this process, it shares the engine."""
        return self.model_copy()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle the arguments; the copy opens the engine of its own process."""
        if self.engine is not None:
            msg = f"a {type(self).__name__} on a given engine ({self.engine!r}) cannot be pickled"
            raise TypeError(msg)
        given = {name: getattr(self, name) for name in self.model_fields_set - self._not_copied}
        return _build, (type(self), given)


def _build(kind: type[Any], arguments: dict[str, Any]) -> Any:
    return kind(**arguments)
