"""``vllm-agent batch --ray`` on a real cluster of two nodes, with PostgreSQL and a real vLLM server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vllm_server import KEY, VLLMServer

pytest.importorskip("ray", reason="needs Ray: pip install 'vllm-agent[ray]'")

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

NO_MEMORY_MONITOR = "RAY_memory_monitor_refresh_ms"

TOOL = '''
import os, time
import ray
from tools import ToolPolicy, tool

def stamps() -> list[list[str]]:
    with open(os.environ["STAMPS"]) as file:
        return [line.split() for line in file]

@tool(policy=ToolPolicy(timeout=300))
def stamp(word: str) -> str:
    """Stamp a word and give it back stamped.

    The first waits until a second worker has stamped too, and all others until a node is lost.

    Args:
        word: The word to stamp.
    """
    with open(os.environ["STAMPS"], "a") as file:
        file.write(f"{word} {os.getpid()} {ray.get_runtime_context().get_node_id()}\\n")
    while len({worker for _, worker, _ in stamps()}) < 2:
        time.sleep(0.1)
    while stamps()[0][0] != word and not os.path.exists(os.environ["STAMPS"] + ".lost"):
        time.sleep(0.1)
    return f"stamped {word}"
'''


@pytest.fixture(scope="module")
def stamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray") / "stamps"


@pytest.fixture(scope="module")
def cluster(stamps: Path) -> Iterator[Any]:
    """A head that takes no work, and two nodes that do."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ[NO_MEMORY_MONITOR] = "0"  # other tests' engines have their share of the memory
    os.environ["STAMPS"] = str(stamps)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 10**8})
    nodes = [cluster.add_node(wait=False, num_cpus=2, object_store_memory=10**8) for _ in range(2)]
    cluster.wait_for_nodes(timeout=300)
    cluster.workers = nodes
    yield cluster
    cluster.shutdown()
    del (
        os.environ["STAMPS"],
        os.environ["RAY_USAGE_STATS_ENABLED"],
        os.environ[NO_MEMORY_MONITOR],
    )


@pytest.fixture
def environment(tmp_path: Path, postgres_url: str) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_AGENT_")}
    cache = {name: value for name, value in os.environ.items() if name == "VLLM_AGENT_CACHE"}
    return {
        **known,
        **cache,
        "VLLM_AGENT_HOME": str(tmp_path / "home"),
        "VLLM_AGENT_DATABASE": postgres_url,
        "VLLM_AGENT_API_KEY": KEY,
    }


def lines_of(path: Path) -> list[str]:
    """What stands in a file that is being written, without a line that is not whole yet."""
    return path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_lost_node_loses_and_repeats_nothing(
    cluster: Any, stamps: Path, vllm_server: VLLMServer, environment: dict[str, str], tmp_path: Path
) -> None:
    module = tmp_path / "stamp_tool.py"
    module.write_text(TOOL)
    config = tmp_path / "tools.toml"
    config.write_text(f'modules = ["{module}"]\n')
    words = [f"word{number}" for number in range(14)]
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "out.jsonl"
    tasks.write_text(
        "".join(
            json.dumps({"id": word, "question": f"Use the tool stamp to stamp the word {word}."}) + "\n"
            for word in words
        )
    )
    command = [sys.executable, "-m", "agent", "batch", str(tasks), str(out), "--json"]
    command += ["--ray", cluster.address, "--concurrency", "4", "--tools-config", str(config)]
    command += ["--tools", "stamp", "--base-url", vllm_server.base_url, "--max-tokens", "32"]
    command += ["--temperature", "0"]

    def kill_a_node() -> None:
        """One on which a worker is at work, as soon as a line is answered; the others wait for it."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not lines_of(out):
            time.sleep(0.1)
        busy = {line.split()[2] for line in lines_of(stamps)}
        lost = next(node for node in cluster.workers if node.node_id in busy)
        cluster.workers.remove(lost)
        cluster.remove_node(lost, allow_graceful=False)
        stamps.with_name(f"{stamps.name}.lost").touch()

    killer = threading.Thread(target=kill_a_node)
    killer.start()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    killer.join()
    assert done.returncode == 0, done.stderr
    assert "is lost (" in done.stderr
    found = records(out)
    assert [record["id"] for record in found] == words
    finished = {}
    for record in found:
        assert record["error"] is None, record
        (finished[record["id"]],) = [m["content"] for m in record["messages"] if m["role"] == "tool"][:1]
    runs = Counter(line.split()[0] for line in stamps.read_text().splitlines())
    # No call runs twice. The outcome of one that was under way on the lost node is unknown, and it says so.
    assert max(runs.values()) == 1, runs
    for word, result in finished.items():
        assert result == f"stamped {word}" or "unknown" in result.lower(), result
    assert sum(result.startswith("stamped") for result in finished.values()) >= len(words) - 4
    workers = {line.split()[1] for line in stamps.read_text().splitlines()}
    assert len(workers) >= 2


def test_a_worker_has_an_engine_of_its_own(cluster: Any, environment: dict[str, str], tmp_path: Path) -> None:
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "out.jsonl"
    tasks.write_text('{"question": "What is 15 * 23?"}\n{"question": "Name a colour.", "tools": []}\n')
    command = [sys.executable, "-m", "agent", "batch", str(tasks), str(out), "--ray", cluster.address]
    command += ["--ray-workers", "1", "--max-tokens", "32"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert all(record["answer"] for record in records(out))
    assert "15 * 23 = 345" in [m["content"] for m in records(out)[0]["messages"] if m["role"] == "tool"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--ray", "127.0.0.1:1"], "there is no Ray cluster at '127.0.0.1:1'"),
        (["--ray", "auto", "--database", "file.sqlite"], "PostgreSQL, which every node reaches"),
        (["--ray-workers", "2"], "--ray-workers needs --ray"),
    ],
)
def test_what_cannot_work_is_refused(
    environment: dict[str, str], tmp_path: Path, flags: list[str], complaint: str
) -> None:
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "out.jsonl"
    tasks.write_text('{"question": "Hi"}\n')
    command = [sys.executable, "-m", "agent", "batch", str(tasks), str(out), *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (1, 2)
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
