"""The benchmarks run: a short form of each, without looking at the figures."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from ports import held_port
from postgres_server import PostgresServer
from vllm_server import KEY, VLLMServer

from agent import ChatVLLM, open_checkpointer
from agent.catalogue.embedded import embedded_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.engine
def test_bfcl_scores_an_item() -> None:
    command = [sys.executable, str(BENCHMARKS / "bfcl.py"), "--limit", "1", "--json"]
    command += ["--categories", "simple_python,irrelevance"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    required = [score for score in scores if score["mode"] == "required"]
    assert [score["called"] for score in required] == [1.0]
    assert {score["category"] for score in scores} == {"simple_python", "irrelevance"}


@pytest.mark.engine
def test_bfcl_scores_the_peer() -> None:
    command = [sys.executable, str(BENCHMARKS / "bfcl.py"), "--who", "peer", "--limit", "1", "--json"]
    command += ["--categories", "parallel,irrelevance", "--max-tokens", "64"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert [(score["mode"], score["category"]) for score in figures["scores"]] == [
        ("required", "parallel"),
        ("auto", "parallel"),
        ("auto", "irrelevance"),
    ]
    # The server does show the tools to its model, and reads the calls: with `required` one is begun.
    forced = [outcome for outcome in figures["outcomes"] if outcome["mode"] == "required"]
    assert all(outcome["calls"] or "<tool_call>" in outcome["text"] for outcome in forced), forced


@pytest.mark.engine
def test_text_measures_our_calls() -> None:
    command = [sys.executable, str(BENCHMARKS / "text.py"), "--role", "ours", "--way", "tasks"]
    command += ["--model", str(embedded_model()), "--calls", "3", "--tokens", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["well"], figures["same"], figures["errors"]) == (1.0, 1.0, {})
    assert figures["tokens_per_s"] > 0


def short_form(module: str, *arguments: str) -> dict[str, Any]:
    """Run a benchmark of conversations as its document says, and return what it prints."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--json"]
    done = subprocess.run(
        command, cwd=BENCHMARKS.parent, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_killed_at_random_moments_nothing_is_lost_or_done_twice(
    database: str, request: pytest.FixtureRequest
) -> None:
    """The short form of the crash matrix; the long one kills 200 processes."""
    if database == "postgresql":
        request.getfixturevalue("postgres")  # which fails, or skips, where there is none
    figures = short_form("crash", "--kills", "8", *(["--postgres"] if database == "postgresql" else []))
    assert figures["kills"] == 8
    assert figures["conversations"] >= 1
    assert (figures["ran_twice"], figures["different"]) == ([], [])


def test_processes_share_a_file() -> None:
    figures = short_form("processes", "--seconds", "1")["ours"]
    assert (figures["errors"], figures["failed_processes"]) == (0, 0)
    assert (figures["conversations_that_lost_a_step"], figures["file_is_sound"]) == (0, True)


@pytest.mark.parametrize("name", ["ours", "official"])
def test_persistence_measures_both_savers(name: str) -> None:
    from benchmarks import persistence

    opener = persistence.SAVERS[name]
    assert asyncio.run(persistence.conversation(opener, persistence.Delta, 34))["megabytes"] > 0
    assert asyncio.run(persistence.concurrent(opener, 1))["steps_per_s"] > 0
    assert asyncio.run(persistence.loading(opener, 40, 3))["load_ms"] > 0
    assert asyncio.run(persistence.growth([1, 2, 4]))["exponent"] > 0


@pytest.mark.engine
def test_engine_measures_our_calls() -> None:
    command = [sys.executable, str(BENCHMARKS / "engine.py"), "--roles", "ours", "--rounds", "1"]
    command += ["--calls", "3", "--tokens", "4", "--turns", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    round_ = json.loads(done.stderr.strip().splitlines()[-1].removeprefix("round 1: "))
    assert round_["ours"]["first_token_s"] > 0
    turns = round_["turns"]["3"]["ours"]
    assert len(turns) == 2
    assert all(turn["tokens_per_s"] > 0 and turn["processor_us"] > 0 for turn in turns)
    rows = json.loads(done.stdout)
    assert [row["figure"].split()[0] for row in rows] == ["processor", "processor", "MB", "MB"]


@pytest.mark.engine
def test_batch_sends_generate_what_it_sent_itself(
    real_model: ChatVLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import batch

    monkeypatch.setenv("VLLM_AGENT_HOME", "")  # restored at the end: the benchmark sets it
    tasks = tmp_path / "tasks.jsonl"
    batch.write_tasks(tasks, lines=2, first=100, tools=["calculator"])
    figures = batch.run_batch(tasks, tmp_path, 8, own_engine=True)
    requests = pickle.loads(tasks.with_suffix(".sent").read_bytes())
    assert figures["requests"] == len(requests) >= 4  # for each line at least a call and an answer
    assert figures["tokens"] >= 2 * 8

    class Plain:
        """Takes what `vllm.LLM.generate` takes."""

        def generate(self, prompts: list[Any], params: list[Any], *, use_tqdm: bool) -> list[Any]:
            tokenizer = real_model._session.engine()._server._llm.renderer.tokenizer  # type: ignore[union-attr]
            texts = [tokenizer.decode(prompt["prompt_token_ids"]) for prompt in prompts]
            assert sum("What is 100 * 7?" in text for text in texts) >= 2
            return [Namespace(outputs=[Namespace(token_ids=[1] * each.max_tokens)]) for each in params]

    assert batch.replay(Plain(), requests)["requests"] == figures["requests"]


class Cable:
    """The way to a server, which can be cut: who is connected is cut off, and nobody else gets through."""

    def __init__(self, address: str, port: int) -> None:
        self._there = address.removeprefix("http://").split(":")
        self._loop = asyncio.get_running_loop()
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = port
        self.connected = 0

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self.connected = max(self.connected, len(self._ends))
        for end in list(self._ends):
            end.transport.abort()

    def from_a_thread(self, what: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        return lambda: asyncio.run_coroutine_threadsafe(what(), self._loop).result(timeout=60)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection(*self._there)
        self._ends |= {writer, out}
        await asyncio.gather(self._carry(reader, out), self._carry(there, writer), return_exceptions=True)
        self._ends -= {writer, out}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


@pytest.mark.engine
def test_load_survives_a_server_that_is_cut_off(vllm_server: VLLMServer, tmp_path: Path) -> None:
    """The short form of `--server --kill`: what a client sees of it, without loading a model twice."""
    from benchmarks import load

    async def main(port: int) -> tuple[dict[str, Any], int]:
        cable = Cable(vllm_server.base_url, port)
        await cable.mend()
        where = {"base_url": f"http://127.0.0.1:{cable.port}/v1", "api_key": KEY}
        options = Namespace(conversations=6, seconds=8.0)
        async with open_checkpointer(tmp_path / "load.sqlite") as saver:
            with ChatVLLM(temperature=0, max_tokens=8, **where) as model:
                await asyncio.to_thread(model.start)
                faults = [cable.from_a_thread(what) for what in (cable.cut, cable.mend)]
                figures = await load.under_load(model, saver, options, faults)
        await cable.cut()
        return figures, cable.connected

    with held_port() as port:
        figures, connected = asyncio.run(main(port))
    assert connected >= 2
    assert figures["wrong"] == {}
    assert sum(figures["errors"].values()) >= 1  # somebody was cut off
    assert figures["resumed"] + figures["not_asked"] >= 1
    assert figures["turns"] >= 6
    assert figures["fewest_turns_of_a_conversation"] >= 1


@pytest.mark.engine
def test_load_survives_a_database_that_restarts(real_model: ChatVLLM, postgres: PostgresServer) -> None:
    from benchmarks import load

    async def main() -> dict[str, Any]:
        model = real_model.model_copy(update={"max_tokens": 8})
        async with open_checkpointer(postgres.new_database(), timeout=120) as saver:
            options = Namespace(conversations=6, seconds=5.0)
            return await load.under_load(model, saver, options, [postgres.restart])

    figures = asyncio.run(main())
    assert (figures["wrong"], figures["errors"]) == ({}, {})  # it is waited for
    assert figures["turns"] >= 6


@pytest.mark.engine
def test_slow_readers_are_measured(real_model: ChatVLLM) -> None:
    from benchmarks import slow_reader

    figures = asyncio.run(slow_reader.measure(real_model, rounds=1, others=1, turns=1))
    assert 0 < figures["ratio"] < slow_reader.PAUSE * slow_reader.STREAMED  # they were not waited for


def test_pictures_are_of_the_figures_in_the_document() -> None:
    from benchmarks import plot

    document = (BENCHMARKS / "README.md").read_text()
    for name, picture in plot.pictures().items():
        assert (plot.PLOTS / name).read_text() == picture, "python -m benchmarks.plot draws them again"
        assert f"](plots/{name})" in document
