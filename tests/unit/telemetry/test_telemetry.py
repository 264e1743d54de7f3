"""Runs of real graphs on the scripted engine, and what metrics, traces and logs say of them."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.types import Command
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from otlp_collector import Collector
from ports import held_port
from prometheus_client import CollectorRegistry, generate_latest

from agent import ChatVLLM, open_checkpointer
from agent.engines import ScriptedEngine
from agent.engines.scripted import Reply
from agent.errors import ConfigurationError
from agent.telemetry import ActivityLog, JsonFormatter, Metrics, RunObserver, Tracing, open_telemetry
from graphs import build_approval_graph, build_react_graph
from tools import ToolPolicy, tool

PATIENCE = 60.0
WAITED = 25.0
"""Seconds: less than what OpenTelemetry waits for a collector, and far more than anything else here takes."""


@tool
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one.
        b: the other.
    """
    return a + b


@tool
def broken(a: int) -> int:
    """Break.

    Args:
        a: anything.
    """
    raise ValueError(f"secret {a}")


@tool(policy=ToolPolicy(approval=True))
def pay(a: int) -> int:
    """Pay.

    Args:
        a: how much.
    """
    return a


def calls(*given: tuple[str, dict[str, Any]]) -> Reply:
    return Reply(
        tool_calls=[{"name": name, "arguments": args, "id": f"c{i}"} for i, (name, args) in enumerate(given)]
    )


class Watched:
    """Sinks of one's own, and a graph that they watch."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.registry = CollectorRegistry()
        self.observer = RunObserver([Metrics(self.registry), Tracing(provider), ActivityLog()])

    def config(self, thread: str = "t", **given: Any) -> Any:
        return {"configurable": {"thread_id": thread}, "callbacks": [self.observer], **given}

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"vllm_agent_{name}", labels)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def react(script: list[Any], saver: Any = None) -> Any:
    model = ChatVLLM(engine=ScriptedEngine(script))
    return build_react_graph(model=model, tools=[add, broken], checkpointer=saver)


def parents(spans: list[ReadableSpan]) -> dict[str, str | None]:
    names = {span.context.span_id: span.name for span in spans if span.context}
    return {span.name: names.get(span.parent.span_id) if span.parent else None for span in spans}


@pytest.mark.parametrize("mode", ["sync", "async", "streamed"])
def test_a_run_is_one_tree_of_spans(watched: Watched, mode: str) -> None:
    with open_checkpointer(":memory:") as saver:
        saver.observer = watched.observer.checkpoint_write
        graph = react([calls(("add", {"a": 1, "b": 2})), "three"], saver)
        asked = {"messages": "1 + 2?"}
        if mode == "sync":
            graph.invoke(asked, watched.config())
        elif mode == "async":
            asyncio.run(graph.ainvoke(asked, watched.config()))
        else:
            list(graph.stream(asked, watched.config(), stream_mode="messages"))
    around = parents(watched.spans)
    assert around["invoke_agent react"] is None
    assert around["step model"] == around["step tools"] == "invoke_agent react"
    assert around["chat embedded"] == "step model"
    assert around["execute_tool add"] == "step tools"
    assert around["checkpoint put"] == around["checkpoint put_writes"] == "invoke_agent react"
    assert len(watched.named("chat embedded")) == len(watched.named("step model")) == 2
    assert len({span.context.trace_id for span in watched.spans if span.context}) == 1
    assert (watched.one("execute_tool add").attributes or {})["gen_ai.tool.call.id"] == "c0"
    answer = watched.named("chat embedded")[-1].attributes or {}
    assert answer["gen_ai.conversation.id"] == "t"
    assert answer["gen_ai.usage.output_tokens"] == 1
    assert answer["gen_ai.response.finish_reasons"] == ("stop",)
    assert ("gen_ai.response.time_to_first_chunk" in answer) == (mode == "streamed")


def test_metrics_count_what_happened(watched: Watched) -> None:
    with open_checkpointer(":memory:") as saver:
        saver.observer = watched.observer.checkpoint_write
        graph = react([calls(("add", {"a": 1, "b": 2}), ("broken", {"a": 1})), "three"], saver)
        list(graph.stream({"messages": "go"}, watched.config(), stream_mode="messages"))
    assert watched.value("run_seconds_count", graph="react", outcome="ok") == 1
    assert watched.value("step_seconds_count", graph="react", node="tools", outcome="ok") == 2
    assert watched.value("model_call_seconds_count", model="embedded", outcome="ok") == 2
    assert watched.value("model_first_token_seconds_count", model="embedded") == 2
    assert watched.value("tool_call_seconds_count", tool="add", outcome="ok") == 1
    assert watched.value("tool_call_seconds_count", tool="broken", outcome="error") == 1
    assert watched.value("model_tokens_total", model="embedded", kind="output") == 1
    assert (watched.value("checkpoint_write_seconds_count", method="put", outcome="ok") or 0) >= 3
    for kind in ("run", "step", "model", "tool", "checkpoint"):
        assert watched.value("running", kind=kind) == 0, kind


def test_nothing_that_was_said_is_recorded(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "agent.telemetry")
    graph = react([calls(("broken", {"a": 4711})), "the secret answer 4711"])
    graph.invoke({"messages": "the secret question 4711"}, watched.config())
    written = [span.to_json() for span in watched.spans]
    written += [JsonFormatter().format(record) for record in caplog.records if "telemetry" in record.name]
    written.append(generate_latest(watched.registry).decode())
    assert len(written) > 10
    assert not [each for each in written if "secret" in each or "4711" in each]


def test_failures_and_their_kinds_are_told(watched: Watched) -> None:
    graph = react([calls(("broken", {"a": 1})), RuntimeError("no more")])
    with pytest.raises(RuntimeError):
        graph.invoke({"messages": "go"}, watched.config())
    assert (watched.one("execute_tool broken").attributes or {})["error.type"] == "ValueError"
    failed = watched.named("chat embedded")[-1]
    assert failed.status.status_code is StatusCode.ERROR
    assert watched.one("invoke_agent react").status.status_code is StatusCode.ERROR
    assert watched.value("run_seconds_count", graph="react", outcome="error") == 1
    assert watched.value("running", kind="run") == 0


def test_waiting_for_a_person_is_no_failure(watched: Watched) -> None:
    engine = ScriptedEngine([calls(("pay", {"a": 1})), "paid"])
    with open_checkpointer(":memory:") as saver:
        graph = build_approval_graph(model=ChatVLLM(engine=engine), tools=[pay], checkpointer=saver)
        graph.invoke({"messages": "pay"}, watched.config())
        first = watched.one("invoke_agent approval")
        assert first.status.status_code is StatusCode.UNSET
        assert (first.attributes or {})["vllm_agent.interrupted"] is True
        assert watched.value("run_seconds_count", graph="approval", outcome="interrupted") == 1
        graph.invoke(Command(resume={"c0": "approve"}), watched.config())
    assert watched.value("run_seconds_count", graph="approval", outcome="ok") == 1
    assert watched.value("tool_call_seconds_count", tool="pay", outcome="ok") == 1


def test_conversations_at_the_same_time_are_kept_apart(watched: Watched) -> None:
    async def talk() -> None:
        async with open_checkpointer(":memory:") as saver:
            saver.observer = watched.observer.checkpoint_write
            graph = react(["well"] * 20, saver)
            await asyncio.gather(
                *(graph.ainvoke({"messages": "hi"}, watched.config(f"t{i}")) for i in range(20))
            )

    asyncio.run(talk())
    runs = {span.context.trace_id: span for span in watched.named("invoke_agent react") if span.context}
    assert len(runs) == 20
    for span in watched.spans:
        run = runs[span.context.trace_id]
        assert (span.attributes or {})["gen_ai.conversation.id"] == (run.attributes or {})[
            "gen_ai.conversation.id"
        ]
    assert len(watched.named("checkpoint put")) >= 40


def test_the_observer_forgets_what_has_ended(watched: Watched) -> None:
    graph = react([calls(("broken", {"a": 1})), "done"])
    graph.invoke({"messages": "go"}, watched.config())
    assert not watched.observer._current
    assert not watched.observer._owners
    assert not watched.observer._runs


async def test_a_run_that_is_stopped_leaves_nothing_running(watched: Watched) -> None:
    run = asyncio.create_task(react([Reply("Slow.", delay=30)]).ainvoke({"messages": "q"}, watched.config()))
    while watched.value("running", kind="model") != 1:  # noqa: ASYNC110 - a metric has no event
        await asyncio.sleep(0.01)
    run.cancel()
    await asyncio.wait([run])
    assert [watched.value("running", kind=kind) for kind in ("model", "step", "run")] == [0, 0, 0]
    assert (watched.observer._owners, watched.observer._current) == ({}, {})
    [call] = [span for span in watched.spans if span.name.startswith("chat ")]
    assert (call.attributes or {})["error.type"] == "CancelledError"


def test_a_run_joins_the_trace_around_it(watched: Watched) -> None:
    provider = TracerProvider()
    with provider.get_tracer("web").start_as_current_span("request") as request:
        react(["hello"]).invoke({"messages": "hi"}, watched.config())
    assert watched.one("invoke_agent react").context.trace_id == request.get_span_context().trace_id


def test_log_lines_are_json(caplog: pytest.LogCaptureFixture, watched: Watched) -> None:
    caplog.set_level(logging.INFO, "agent.telemetry")
    react([calls(("broken", {"a": 1})), "done"]).invoke({"messages": "go"}, watched.config())
    lines = [json.loads(JsonFormatter().format(r)) for r in caplog.records if r.name == "agent.telemetry"]
    told = {(line["kind"], line["name"], line["outcome"]) for line in lines}
    assert told >= {("run", "react", "ok"), ("tool", "broken", "error"), ("model", "embedded", "ok")}
    tool_line = next(line for line in lines if line["kind"] == "tool")
    assert tool_line["level"] == "warning"
    assert tool_line["graph"] == "react"
    assert tool_line["thread_id"] == "t"
    assert tool_line["call_id"] == "c0"
    assert not [line for line in lines if line["kind"] == "checkpoint"]


def test_an_exception_is_part_of_its_line() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.getLogger("agent").makeRecord("agent", 40, "f", 1, "bad %s", ("luck",), True)
        import sys

        record.exc_info = sys.exc_info()
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "bad luck"
    assert "ValueError: no" in line["exception"]


def test_metrics_stand_on_a_page_that_ends_with_the_session(port: int) -> None:
    with open_telemetry(metrics_port=port) as observer:
        react(["hello"]).invoke({"messages": "hi"}, {"callbacks": [observer]})
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE).read().decode()
        assert 'vllm_agent_run_seconds_count{graph="react",outcome="ok"}' in page
        taken = f"metrics_port {port} cannot be used"
        with pytest.raises(ConfigurationError, match=taken), open_telemetry(metrics_port=port):
            pass
    with open_telemetry(metrics_port=port):  # free again, and no metric is registered twice
        pass


def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.telemetry.opening._LAST_SECONDS", PATIENCE)
    with Collector() as collector, open_telemetry(otlp_traces_endpoint=collector.address) as observer:
        react(["hello"]).invoke({"messages": "hi"}, {"callbacks": [observer]})
    assert {span.name for span in collector.spans} == {"invoke_agent react", "step model", "chat embedded"}
    assert collector.service == "vllm-agent"


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans have a moment at the end, in which OpenTelemetry would wait for half a minute."""
    monkeypatch.setattr("agent.telemetry.opening._LAST_SECONDS", 0.1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "600")


@pytest.mark.usefixtures("brief")
def test_a_collector_that_is_not_there_is_not_waited_for(port: int) -> None:
    begun = time.monotonic()
    with open_telemetry(otlp_traces_endpoint=f"http://127.0.0.1:{port}/v1/traces") as observer:
        react(["hello"]).invoke({"messages": "hi"}, {"callbacks": [observer]})
    assert time.monotonic() - begun < WAITED


@pytest.mark.usefixtures("brief")
def test_a_collector_that_is_silent_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        with open_telemetry(otlp_traces_endpoint=endpoint) as observer:
            react(["hello"]).invoke({"messages": "hi"}, {"callbacks": [observer]})
        assert time.monotonic() - begun < WAITED


def test_a_wrong_endpoint_is_refused() -> None:
    endpoint = "collector:4317"
    with pytest.raises(ConfigurationError, match="4318"), open_telemetry(otlp_traces_endpoint=endpoint):
        pass


def test_nobody_watches_unless_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "agent.telemetry")  # as it is where no command has asked for a log
    with open_telemetry() as observer:
        assert observer is None


@pytest.fixture
def port() -> Iterator[int]:
    """Where nobody listens yet."""
    with held_port() as port:
        yield port
