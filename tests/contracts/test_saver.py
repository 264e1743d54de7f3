"""The saver against LangGraph's own conformance suite, through its async and through its sync methods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from agent.persistence import open_checkpointer


class SyncMethods(BaseCheckpointSaver[str]):
    """Offers a saver's sync methods under the async names that the suite calls."""

    def __init__(self, saver: BaseCheckpointSaver[str]) -> None:
        super().__init__(serde=saver.serde)
        self.saver = saver

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        return self.saver.put(*args, **kwargs)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        self.saver.put_writes(*args, **kwargs)

    async def aget_tuple(self, *args: Any, **kwargs: Any) -> Any:
        return self.saver.get_tuple(*args, **kwargs)

    async def alist(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for found in self.saver.list(*args, **kwargs):
            yield found

    async def adelete_thread(self, *args: Any, **kwargs: Any) -> None:
        self.saver.delete_thread(*args, **kwargs)

    async def adelete_for_runs(self, *args: Any, **kwargs: Any) -> None:
        self.saver.delete_for_runs(*args, **kwargs)

    async def acopy_thread(self, *args: Any, **kwargs: Any) -> None:
        self.saver.copy_thread(*args, **kwargs)

    async def aprune(self, *args: Any, **kwargs: Any) -> None:
        self.saver.prune(*args, **kwargs)


@pytest.mark.parametrize("capability", [capability.value for capability in Capability])
@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("place", ["file", "memory", "postgresql"])
async def test_conformance(
    place: str, kind: str, capability: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    places = {"file": str(tmp_path / "conversations.sqlite"), "memory": ":memory:"}
    where = places.get(place) or request.getfixturevalue("postgres_url")

    @checkpointer_test(name=f"{place}-{kind}")
    async def saver() -> AsyncIterator[BaseCheckpointSaver[str]]:
        async with open_checkpointer(where) as opened:
            yield opened if kind == "async" else SyncMethods(opened)

    report = await validate(saver, capabilities={capability})
    result = report.results[capability]
    assert result.detected
    assert result.passed, result.failures
    assert result.tests_passed > 0
