"""A real engine's life in processes of their own: how it starts, works, fails, dies and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

CHILD = Path(__file__).with_name("engine_child.py")
SIGNALS = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "kill": signal.SIGKILL}
ENDINGS = ("end", "raise", "exit", *SIGNALS)
TOO_LONG = 1000  # seconds; on an idle machine the longest takes a tenth of that


@dataclass(frozen=True)
class Ended:
    """A process that ran an engine, after its end."""

    status: int
    said: dict[str, Any]
    stderr: str
    left: list[str]
    """Command lines of processes that it started and that still run."""


def run(*arguments: str) -> Ended:
    process = subprocess.Popen(
        [sys.executable, str(CHILD), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that whatever it starts can be found again
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    # A separate reader, so that neither pipe fills while the other is read.
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()))
    reader.start()
    timer = threading.Timer(TOO_LONG, process.kill)
    timer.start()
    said: dict[str, Any] = {}
    for line in process.stdout:
        said.update(json.loads(line))  # stdout belongs to the caller: anything else there is a failure
        if "ready" in said and arguments[0] in SIGNALS:
            process.send_signal(SIGNALS[arguments[0]])
    status = process.wait()
    timer.cancel()
    reader.join()
    return Ended(status, said, "".join(errors), in_session(process.pid))


def in_session(session: int) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session:
                found.append(" ".join(process.cmdline()))
        except (OSError, psutil.Error):
            continue
    return found


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Ended]]]:
    """All of them, two at a time; a start takes long."""
    with ThreadPoolExecutor(2) as pool:
        scratch = tmp_path_factory.mktemp("models")
        running = {"life": pool.submit(run, "life", str(scratch))}
        running |= {how: pool.submit(run, how) for how in ENDINGS}
        yield running


@pytest.fixture(scope="module")
def life(processes: dict[str, Future[Ended]]) -> dict[str, Any]:
    ended = processes["life"].result()
    assert ended.status == 0, ended.stderr[-3000:]
    return ended.said


# -- ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "status"),
    [("end", 0), ("raise", 1), ("exit", 3), ("interrupt", -signal.SIGINT), ("terminate", -15), ("kill", -9)],
)
def test_every_end_is_clean(processes: dict[str, Future[Ended]], how: str, status: int) -> None:
    ended = processes[how].result()
    assert ended.said["answer"]
    assert ended.status == status, ended.stderr[-3000:]
    assert ended.said["children"] == 0
    assert ended.left == []
    expected = {"raise": "RuntimeError: on purpose", "interrupt": "KeyboardInterrupt"}.get(how)
    if expected is None:
        assert ended.stderr == ""
    else:  # the one traceback that the caller asked for, and nothing after it
        assert ended.stderr.count("Traceback") == 1
        assert ended.stderr.rstrip().endswith(expected)


# -- start --------------------------------------------------------------------------------------------------


def test_the_stages_of_a_start_are_told_in_order(life: dict[str, Any]) -> None:
    assert life["stages"] == ["importing", "loading", "warming up", "ready"]


def test_what_computes_is_imported_before_anything_is_loaded(processes: dict[str, Future[Ended]]) -> None:
    """Its modules stay: among what is freed they would keep memory that is not theirs."""
    workers = processes["end"].result().said["workers"]
    assert (workers["importing"], workers["loading"]) == (False, True)


@pytest.mark.parametrize(
    ("attempt", "error", "says"),
    [
        ("unknown_argument", "ConfigurationError", ["gpu_memory_utilisation", "gpu_memory_utilization"]),
        ("no_directory", "ModelNotFoundError", ["/no/such/model"]),
        ("no_config", "ModelNotFoundError", ["config.json"]),
        ("unknown_id", "ModelNotFoundError", ["nobody-at-all/no-such-model-exists", "hub"]),
        ("no_weights", "EngineStartError", ["no_weights", "weights"]),
        ("cut", "EngineStartError", ["/cut"]),
        ("no_json", "EngineStartError", ["no_json", "JSON"]),
        ("strange", "EngineStartError", ["NoSuchModel"]),
        ("too_long", "EngineStartError", ["1048576", "8192"]),
        ("parallel", "EngineStartError", ["tensor parallel size (8)"]),
    ],
)
def test_a_start_that_must_fail_says_why(
    life: dict[str, Any], attempt: str, error: str, says: list[str]
) -> None:
    name, message = life[attempt]
    assert name == error
    for part in says:
        assert part in message
    assert len(message) < 1000
    assert "validation error" not in message


# -- work ---------------------------------------------------------------------------------------------------


def test_concurrent_calls_are_batched(life: dict[str, Any]) -> None:
    assert life["most_running"] > 8
    assert life["answers"] == [48] * 16


# -- death and close ----------------------------------------------------------------------------------------


def test_all_who_wait_when_the_engine_dies_are_told(life: dict[str, Any]) -> None:
    assert life["died"] == ["EngineDeadError"] * 4


def test_after_its_death_a_fresh_engine_answers(life: dict[str, Any]) -> None:
    first, second = life["texts"]
    assert first
    assert first == second


def test_all_who_wait_when_the_model_is_closed_are_told(life: dict[str, Any]) -> None:
    assert life["closed"] == ["EngineClosedError"] * 4
    assert life["after"][0] == "EngineClosedError"


def test_close_frees_threads_and_memory(life: dict[str, Any]) -> None:
    engine_threads = {"vllm-core", "vllm-front"}
    assert engine_threads <= set(life["threads"])
    assert not engine_threads & set(life["threads_after"])
    before, running, after = life["memory"]
    assert running - before > 400e6, "the weights alone are 540 MB"
    assert after - before < 0.5 * (running - before)  # libraries that were imported late stay
