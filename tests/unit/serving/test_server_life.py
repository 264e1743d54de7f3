"""Start, wait and stop, with a child that behaves as a server does."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.catalogue import preflight
from agent.errors import ConfigurationError, DoesNotFitError, EngineStartError
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


def test_a_server_that_cannot_be_noted_is_not_left_behind(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(record: ServerRecord) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory, "write", full)
    before = set(life._CHILDREN)
    with pytest.raises(ConfigurationError, match="No space left on device"):
        start(model, directory)
    [pid] = set(life._CHILDREN) - before
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("usual", [True, False])
def test_a_server_that_still_loads_has_its_port_already(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch, usual: bool
) -> None:
    """It listens only when vLLM is imported: until then nobody else can see that the port is taken."""
    monkeypatch.setenv("FAKE_SERVER", "loads")
    first = life.start(order_from_arguments(model, {}), directory, cache=directory.path)
    taken = int(first.url.rpartition(":")[2])
    wanted = order_from_arguments(model, {}, port=None if usual else taken)
    if usual:
        assert life.start(wanted, directory, cache=directory.path).url != first.url
    else:
        with pytest.raises(ConfigurationError, match=rf"port {taken} .*{first.id}.*loading"):
            life.start(wanted, directory, cache=directory.path)


def test_the_stages_are_shown_to_all_who_wait(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE_SHOWN", str(tmp_path))
    record = start(model, directory)
    seen: list[str] = []

    def shown(stage: Stage) -> None:
        seen.append(stage.name)
        (tmp_path / stage.name).touch()

    life.wait_until_ready(record, directory, shown=shown)
    assert seen == ["importing", "loading"]
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


def test_why_a_server_ended_is_known_also_when_nobody_has_asked_it_yet(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks the system may say that it is dead before its parent has asked for its end."""
    advice = {"out of memory": "less context"}
    monkeypatch.setattr(preflight, "memory_advice", lambda error, *_, **__: advice.get(error))
    monkeypatch.setenv("FAKE_SERVER", "killed")
    record = start(model, directory)
    while record.alive:
        time.sleep(0.01)
    failure = life.start_failure(record, directory)
    assert isinstance(failure, DoesNotFitError)
    assert "the system killed it" in str(failure)


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
    deadline = time.monotonic() + 60
    while directory.records() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert directory.records() == []
    assert not life.running(record)
    life.stop(record, directory)  # there is nothing to do, and no error
