"""kill -9 at any moment: the conversation resumes, and no finished tool call runs again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("crash_agent.py")
PATIENCE = 120.0
ENGINE_PATIENCE = 600.0
STEPS = 20


class Crashing:
    """One conversation, and processes that work on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("VLLM_AGENT_")},
            "VLLM_AGENT_HOME": str(directory),
            "VLLM_AGENT_WARM_MINUTES": "0",
            "XDG_CONFIG_HOME": str(directory / "config"),
            "VLLM_AGENT_CACHE": os.environ.get("VLLM_AGENT_CACHE", ""),
        }

    def start(self, script: Sequence[Any] | int, *arguments: str) -> subprocess.Popen[str]:
        """Start a process on a scripted model."""
        child = [sys.executable, str(CHILD), str(self.directory), json.dumps(script)]
        return self._start([*child, *arguments, "--model", "scripted"])

    def start_real(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a process on the embedded model."""
        return self._start([sys.executable, "-m", "agent", *arguments])

    def kill_at(self, process: subprocess.Popen[str], sign: str, *, while_running: str | None = None) -> None:
        """Kill -9 as soon as the process has shown ``sign``, and the tool ``while_running`` has begun."""
        assert process.stderr is not None
        shown = ""
        for line in process.stderr:
            shown += line
            if sign in line:
                break
        else:
            pytest.fail(f"{sign!r} was never shown: {shown}")
        if while_running is None:
            self.kill(process)
        else:  # calls of one answer begin side by side: the one that was quicker says nothing of the other
            self.kill_while_running(process, while_running)

    def kill_while_running(self, process: subprocess.Popen[str], tool: str) -> None:
        """Kill -9 while a tool runs."""
        deadline = time.monotonic() + PATIENCE
        while not self.runs()[tool]:
            assert time.monotonic() < deadline, f"{tool} did not run"
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        self.kill(process)

    @staticmethod
    def kill(process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()

    def resume(self, script: Sequence[Any] | int, *arguments: str) -> dict[str, Any]:
        """Run the conversation to its end in a new process, and return what it prints."""
        printed: dict[str, Any] = self.finish(self.start(script, "resume", "--json", *arguments), PATIENCE)
        return printed

    @staticmethod
    def finish(process: subprocess.Popen[str], patience: float) -> Any:
        """Wait for a process that prints JSON, and return it."""
        printed, said = process.communicate(timeout=patience)
        assert process.returncode == 0, said
        return json.loads(printed)

    def runs(self) -> Counter[str]:
        """How often each tool ran, over all processes."""
        file = self.directory / "runs.txt"
        return Counter(file.read_text().split()) if file.exists() else Counter()

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment
        )


@pytest.fixture
def crashing(tmp_path: Path) -> Crashing:
    return Crashing(tmp_path)


def calls(*names: str) -> dict[str, Any]:
    """A reply that calls these tools at once."""
    arguments = {"pay": {"amount": 5}}
    return {"tool_calls": [{"name": name, "arguments": arguments.get(name, {})} for name in names]}


def results(printed: dict[str, Any]) -> dict[str, str]:
    """What the conversation says that each tool returned."""
    tools = [message for message in printed["messages"] if message["role"] == "tool"]
    assert len({message["tool_call_id"] for message in tools}) == len(tools)
    return {message["name"]: message["content"] for message in tools}


DONE = [{"content": "All done."}]


def test_killed_in_a_slow_tool_the_finished_one_is_kept_and_the_other_reported(crashing: Crashing) -> None:
    process = crashing.start([calls("pay", "hang")], "run", "go")
    crashing.kill_at(process, "← paid 5", while_running="hang")
    assert crashing.runs() == {"pay": 1, "hang": 1}
    printed = crashing.resume(DONE)
    assert printed["answer"] == "All done."
    assert results(printed)["pay"] == "paid 5"
    assert "outcome of 'hang' is unknown" in results(printed)["hang"]
    assert crashing.runs() == {"pay": 1, "hang": 1}


def test_killed_in_a_tool_that_may_be_repeated_it_runs_again(crashing: Crashing) -> None:
    process = crashing.start([calls("look", "pay")], "run", "go")
    crashing.kill_at(process, "← paid 5", while_running="look")
    printed = crashing.resume(DONE)
    assert results(printed) == {"look": "seen", "pay": "paid 5"}
    assert crashing.runs() == {"pay": 1, "look": 2}


def test_killed_after_a_tool_had_finished_it_does_not_run_again(crashing: Crashing) -> None:
    process = crashing.start([calls("pay"), {"content": "too late", "delay": 300}], "run", "go")
    crashing.kill_at(process, "← paid 5")
    printed = crashing.resume(DONE)
    assert [message["role"] for message in printed["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert printed["answer"] == "All done."
    assert crashing.runs() == {"pay": 1}


def test_killed_in_an_answer_the_question_is_asked_again_once(crashing: Crashing) -> None:
    process = crashing.start([calls("pay"), {"content": "too late", "delay": 300}], "run", "go")
    crashing.kill_at(process, "← paid 5")
    process = crashing.start([{"content": "too late again", "delay": 300}], "resume")
    crashing.kill_at(process, "ready in")
    printed = crashing.resume(DONE)
    assert [message["content"] for message in printed["messages"]][::3] == ["go", "All done."]
    assert crashing.runs() == {"pay": 1}


def test_a_new_question_after_a_crash_finds_the_old_turn_finished(crashing: Crashing) -> None:
    process = crashing.start([calls("pay", "hang")], "run", "go")
    crashing.kill_while_running(process, "hang")
    printed = crashing.resume([*DONE, {"content": "Nothing else."}], "what now, then?")
    said = [message["content"] for message in printed["messages"] if message["role"] != "tool"]
    assert said == ["go", "", "All done.", "what now, then?", "Nothing else."]
    assert crashing.runs()["pay"] <= 1
    assert crashing.runs()["hang"] == 1


def test_killed_again_and_again_every_step_is_done_once_or_reported(crashing: Crashing) -> None:
    chance = random.Random(3)
    crashing.environment["CRASH_HOLD"] = "3"  # however late it is killed, it has not come to its end
    process = crashing.start(STEPS, "run", "go", "--max-steps", "50")
    kills = 0
    while kills < 6:
        seen = len(crashing.runs())
        deadline = time.monotonic() + PATIENCE
        while len(crashing.runs()) == seen and process.poll() is None:
            assert time.monotonic() < deadline, "nothing happens any more"
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.15))  # anywhere in a tool, a checkpoint or the next call
        assert process.poll() is None, process.communicate()[1]
        kills += 1
        crashing.kill(process)
        process = crashing.start(STEPS, "resume", "--max-steps", "50")
    crashing.kill(process)
    del crashing.environment["CRASH_HOLD"]
    if not _messages(crashing)[-1]["content"].startswith("All"):
        crashing.resume(STEPS, "--max-steps", "50")
    messages = _messages(crashing)
    assert messages[-1]["content"] == f"All {STEPS} steps are done."
    told = [message["content"] for message in messages if message["role"] == "tool"]
    for number, text in enumerate(told, start=1):
        ran = crashing.runs()[f"step-{number}"]
        assert (text, ran) == (f"did {number}", 1) or ("unknown" in text and ran <= 1)


def _messages(crashing: Crashing) -> list[dict[str, Any]]:
    [listed] = crashing.finish(crashing.start_real("threads", "list", "--json"), PATIENCE)
    shown = crashing.start_real("threads", "show", listed["id"], "--json")
    messages: list[dict[str, Any]] = crashing.finish(shown, PATIENCE)["messages"]
    return messages


@pytest.mark.engine
def test_the_embedded_model_resumes_after_kill_9(crashing: Crashing) -> None:
    process = crashing.start_real("run", "What is 15 * 23?", "--tools", "calculator")
    crashing.kill_at(process, "← ")
    process = crashing.start_real("resume", "--json", "--tools", "calculator")
    printed = crashing.finish(process, ENGINE_PATIENCE)
    assert [message["role"] for message in printed["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert printed["messages"][2]["content"] == "15 * 23 = 345"
    assert printed["answer"]
