"""What an operator sees of a command on a real vLLM server: spans at a collector, JSON lines, metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from otlp_collector import Collector
from prometheus_client import CollectorRegistry
from vllm_server import KEY, VLLMServer

from agent import ChatVLLM
from agent.telemetry import Metrics, RunObserver
from graphs import build_react_graph

pytestmark = pytest.mark.engine

PATIENT = """
import sys
import agent.telemetry.opening
from agent.cli.main import main
agent.telemetry.opening._LAST_SECONDS = 120
sys.argv[0] = "vllm-agent"
main()
"""
"""The command, which has all the time that it needs for the spans that wait at its end."""


def test_a_command_is_traced_and_logged(vllm_server: VLLMServer, tmp_path: Path) -> None:
    known = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_AGENT_")}
    with Collector() as collector:
        environment = {
            **known,
            "VLLM_AGENT_HOME": str(tmp_path),
            "VLLM_AGENT_BASE_URL": vllm_server.base_url,
            "VLLM_AGENT_API_KEY": KEY,
            "VLLM_AGENT_TEMPERATURE": "0",
            "VLLM_AGENT_OTLP_TRACES_ENDPOINT": collector.address,
            "VLLM_AGENT_MAX_TOKENS": "16",
        }
        command = [sys.executable, "-c", PATIENT, "--log-format", "json", "run", "What is 15 * 23?"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=True
        )
    spans = {span.name.split()[0]: span for span in collector.spans}
    assert {"invoke_agent", "step", "chat", "checkpoint"} <= spans.keys()
    assert len({span.trace_id for span in collector.spans}) == 1
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    model = next(line for line in lines if line.get("kind") == "model")
    assert model["input_tokens"] > 10
    assert model["output_tokens"] > 0
    run = next(line for line in lines if line.get("kind") == "run")
    used = {item.key: item.value.int_value for item in spans["chat"].attributes}
    assert used["gen_ai.usage.input_tokens"] > 10
    assert run["thread_id"] in {item.value.string_value for item in spans["invoke_agent"].attributes}


def test_tokens_are_counted_as_the_server_counts_them(vllm_server: VLLMServer) -> None:
    registry = CollectorRegistry()
    observer = RunObserver([Metrics(registry)])
    before = generated(vllm_server)
    with ChatVLLM(base_url=vllm_server.base_url, api_key=KEY, temperature=0, max_tokens=8) as model:
        graph = build_react_graph(model=model, checkpointer=InMemorySaver())
        for number in range(3):
            config = {"callbacks": [observer], "configurable": {"thread_id": str(number)}}
            list(graph.stream({"messages": f"Count to {number + 3}."}, config, stream_mode="messages"))
    (labels,) = {
        tuple(sample.labels.items())
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "vllm_agent_model_tokens_total" and sample.labels["kind"] == "output"
    }
    counted = registry.get_sample_value("vllm_agent_model_tokens_total", dict(labels))
    assert counted == generated(vllm_server) - before > 0


def generated(server: VLLMServer) -> float:
    """Tokens that the server says it has generated."""
    with urllib.request.urlopen(f"{server.base_url}/metrics", timeout=60) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:generation_tokens_total"))
