"""Versions of channels sort by their number, also beside those of LangGraph's own savers and its server."""

from __future__ import annotations

from langgraph.checkpoint.memory import InMemorySaver

from agent.persistence import open_checkpointer


def test_versions_sort_beside_those_of_langgraph() -> None:
    with open_checkpointer(":memory:") as ours:
        makers = [ours.get_next_version, InMemorySaver().get_next_version]
        versions: list[str] = []
        for number in range(120):  # a thread that both continue by turns
            versions.append(makers[number % 2](versions[-1] if versions else None, None))  # type: ignore[arg-type]
    assert versions == sorted(versions)
    assert len({*versions}) == 120


def test_a_thread_of_an_older_form_goes_on_in_it() -> None:
    with open_checkpointer(":memory:") as saver:
        version = saver.get_next_version("0000000009.0123456789", None)
    assert version.startswith("0000000010.")
