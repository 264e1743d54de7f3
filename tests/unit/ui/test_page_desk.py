"""Pages that open one conversation at the same moment."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from agent.ui.desk import Desk
from agent.ui.page import Page
from agent.ui.transcript import Question


class Store:
    """Conversations that are read as soon as they may be."""

    def __init__(self) -> None:
        self.may_read = threading.Event()
        self.may_read.set()

    def get(self, thread_id: str) -> Any:
        self.may_read.wait(10)
        return SimpleNamespace(id=thread_id, status="idle", messages=[])

    def label(self, thread_id: str, key: str) -> str:
        return "react"


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def desk(store: Store) -> Desk:
    app: Any = SimpleNamespace(settings=SimpleNamespace(graph="react"), store=store, thread=lambda _: {})
    engine: Any = SimpleNamespace(wait=None)
    return Desk(app, engine)


async def test_two_that_open_it_show_the_same(desk: Desk) -> None:
    first, second = await asyncio.gather(desk.open("t"), desk.open("t"))
    assert first is second


@pytest.mark.parametrize("graph", [None, "approval"])
async def test_a_question_that_is_asked_meanwhile_stays(desk: Desk, store: Store, graph: str | None) -> None:
    desk._apps["approval"] = desk._app
    talk = await desk.open("t")
    store.may_read.clear()
    opening = asyncio.create_task(desk.open("t", graph=graph))
    await asyncio.sleep(0.05)
    talk.state = "running"
    talk.transcript.asked("Why?")
    store.may_read.set()
    assert await opening is talk
    assert [each.text for each in talk.transcript.entries if isinstance(each, Question)] == ["Why?"]


async def test_a_page_follows_a_change_of_graph_on_another_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    other: Any = SimpleNamespace(settings=SimpleNamespace(graph="approval"), thread=lambda _: {})
    desk._apps["approval"] = other
    talk = await desk.open("t")
    page = Page(desk, talk)
    changed = await desk.open("t", graph="approval")
    assert changed is not talk
    asked: list[str] = []
    monkeypatch.setattr(changed, "ask", asked.append)
    monkeypatch.setattr(desk, "refusal", lambda _: None)
    monkeypatch.setattr(page, "_address", lambda: None)
    page._ask("Why?")
    assert (asked, talk.state) == (["Why?"], "idle")
