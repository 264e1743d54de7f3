"""Start, wait and stop, with a child that behaves as a server does."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

from agent.catalogue import preflight
from agent.errors import DoesNotFitError, EngineStartError
from agent.serving import life
from agent.serving.http import activity
from agent.serving.order import order_from_arguments
from agent.serving.output import Stage
from agent.serving.records import ServerDirectory, ServerRecord

pytestmark = pytest.mark.usefixtures("directory")


def start(model: str, directory: ServerDirectory, **options: Any) -> ServerRecord:
    order = order_from_arguments(model, {}, warm=True, **options)
    return life.start(order, directory, cache=directory.path)


def wait(record: ServerRecord, directory: ServerDirectory) -> list[str]:
    seen: list[Stage] = []
    life.wait_until_ready(record, directory, shown=seen.append)
    return [each.name for each in seen]


def test_a_server_starts_is_noted_answers_and_stops(model: str, directory: ServerDirectory) -> None:
    record = start(model, directory, keys=("secret",))
    assert directory.records() == [record]
    wait(record, directory)
    assert activity(record.url, record.id) is not None
    assert activity(record.url, "another") is None
    assert life.stop(record, directory)
    assert not psutil.pid_exists(record.pid)
    assert directory.records() == []
    assert directory.log(record.id).stat().st_mode & 0o777 == 0o600


def test_the_stages_are_shown_to_all_who_wait(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SERVER", "slow")
    record = start(model, directory)
    assert wait(record, directory) == ["importing", "loading"]
    assert wait(record, directory) == []  # it is ready: there is nothing to show


def test_why_a_server_did_not_start_is_told_and_it_is_forgotten(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SERVER", "fails")
    record = start(model, directory)
    with pytest.raises(EngineStartError, match=r"no such quantization.*its log: ") as caught:
        wait(record, directory)
    assert str(directory.log(record.id)) in str(caught.value)
    assert directory.records() == []


def test_a_server_that_the_system_killed_gives_the_planners_advice(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def advice(error: str, arguments: Any, **_: Any) -> str:
        asked.append((error.splitlines()[0], arguments["model"]))
        return "it fits with less context"

    monkeypatch.setattr(preflight, "memory_advice", advice)
    monkeypatch.setenv("FAKE_SERVER", "killed")
    record = start(model, directory)
    with pytest.raises(DoesNotFitError, match="ran out of memory: it fits with less context"):
        wait(record, directory)
    assert asked == [("out of memory", model)]


def test_a_server_that_does_not_stop_is_killed(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SERVER", "stubborn")
    record = start(model, directory)
    wait(record, directory)
    assert not life.stop(record, directory, grace=0.5)
    assert not psutil.pid_exists(record.pid)


def test_a_server_that_was_killed_behind_our_back_is_gone(model: str, directory: ServerDirectory) -> None:
    record = start(model, directory)
    wait(record, directory)
    os.kill(record.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while directory.records() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert directory.records() == []
    assert not life.running(record)
    life.stop(record, directory)  # there is nothing to do, and no error
