"""A real `vllm serve` on loopback for tests, ended with its engine process by their ids."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from ports import held_port

KEY = "a-key-for-tests"
_START_SECONDS = 550


@dataclass(frozen=True)
class VLLMServer:
    base_url: str
    model: str
    process: subprocess.Popen[bytes]
    log: Path

    def running(self) -> int:
        """Requests that the server's engine works on or has waiting."""
        text = httpx.get(f"{self.base_url}/metrics", timeout=60, trust_env=False).text
        names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
        return int(sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(names)))


@contextmanager
def serve(model: Path, log: Path, *arguments: str) -> Iterator[VLLMServer]:
    """Start a server, wait until it is healthy, and end it with all that it started."""
    with held_port() as port, _served(model, log, port, *arguments) as server:
        yield server


@contextmanager
def _served(model: Path, log: Path, port: int, *arguments: str) -> Iterator[VLLMServer]:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += [
        "--model",
        str(model),
        "--served-model-name",
        "smol",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--enforce-eager", "--dtype", "float32", "--enable-prompt-tokens-details", "--api-key", KEY]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    server = VLLMServer(f"http://127.0.0.1:{port}", "smol", process, log)
    try:
        _wait_until_healthy(server)
        yield server
    finally:
        _end(process)


def _wait_until_healthy(server: VLLMServer) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            if httpx.get(f"{server.base_url}/health", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise RuntimeError(f"the server did not start; its log ends with:\n{server.log.read_text()[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    for child in alive:
        child.kill()
