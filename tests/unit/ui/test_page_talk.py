"""A run on the page ends once, whatever is pressed or fails while it ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from agent.errors import DatabaseError
from agent.ui.talk import Talk
from agent.ui.transcript import Transcript


class SlowTurn:
    """A turn that answers for ever, and takes a moment to be kept."""

    def __init__(self, error: Exception | None = None) -> None:
        self.waiting: list[Any] = []
        self.problems: list[str] = []
        self.kept = False
        self._error = error

    async def ask(self, question: str) -> None:
        await asyncio.Event().wait()

    async def abandon(self, reason: str) -> None:
        await asyncio.sleep(0.05)
        if self._error is not None:
            raise self._error
        self.kept = True


def talk_of(monkeypatch: pytest.MonkeyPatch, turn: SlowTurn) -> Talk:
    async def state(config: Any) -> Any:
        return SimpleNamespace(values={}, tasks=(), get=lambda *_: ())

    async def ready() -> None:
        return

    monkeypatch.setattr("agent.ui.talk.Turn", lambda *_, **__: turn)
    monkeypatch.setattr("graphs.decisions.waiting_calls", lambda _: [])
    monkeypatch.setattr("graphs.decisions.waiting_problems", lambda _: [])
    app: Any = SimpleNamespace(thread=lambda _: {}, graph=SimpleNamespace(aget_state=state))
    return Talk(app, "t", Transcript(), unfinished=False, ready=ready)


async def stopped(talk: Talk, *, times: int) -> None:
    talk.ask("Why?")
    for _ in range(times):
        await asyncio.sleep(0.01)
        talk.stop()
    assert talk._task is not None
    await asyncio.wait([talk._task])


def test_stop_that_is_pressed_twice_stops_once(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = SlowTurn()
    talk = talk_of(monkeypatch, turn)
    asyncio.run(stopped(talk, times=2))
    assert (talk.state, turn.kept) == ("idle", True)
    assert talk.announcement == "Stopped."


def test_what_cannot_be_kept_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = talk_of(monkeypatch, SlowTurn(DatabaseError("the disk is full")))
    asyncio.run(stopped(talk, times=1))
    assert talk.state == "idle"
    assert talk.announcement == "Error: the disk is full"
