"""vLLM's server for a benchmark: on a free port of this machine, ended with all that it started.

One way for all of them, so that a peer's server and ours get the same engine arguments and the same
environment.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

KEY = "a-key-for-the-benchmark"
NAME = "model"
"""What the model is called on the server."""
_START_SECONDS = 600
_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}
_PLAIN = ("-m", "vllm.entrypoints.openai.api_server", "--model")
_OURS = ("-m", "agent", "serve")


class Server:
    """A server that can be killed as a power cut would, and started again on the same port.

    Args:
        model: The model's directory.
        folder: Where its log goes, and what ``vllm-agent serve`` notes.
        arguments: Engine arguments, and others of the server, by their names in Python.
        ours: ``vllm-agent serve`` in the place of ``vllm serve``.
    """

    def __init__(self, model: Path | str, folder: Path, *, ours: bool = False, **arguments: Any) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._log = folder / f"server-{self.port}.log"
        self._command = [sys.executable, *(_OURS if ours else _PLAIN), str(model)]
        self._command += flags(
            {"host": "127.0.0.1", "port": self.port, "served_model_name": NAME, "api_key": KEY, **arguments}
        )
        self._family: list[psutil.Process] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        """The address for clients of OpenAI's API."""
        return f"{self.url}/v1"

    def start(self) -> None:
        """Start it, and wait until it is healthy.

        Raises:
            RuntimeError: It did not start; the message ends with its log.
        """
        environment = {**_ENVIRONMENT, **os.environ, "VLLM_AGENT_HOME": str(self._folder)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", trust_env=False).is_success:
                    leader = psutil.Process(self._process.pid)
                    self._family = [leader, *leader.children(recursive=True)]
                    return
            time.sleep(0.5)
        self.kill()
        raise RuntimeError(f"the server did not start; its log ends with:\n{self._log.read_text()[-3000:]}")

    def kill(self) -> None:
        """End it with SIGKILL, and all that it started."""
        self._end(grace=0)

    def stop(self) -> None:
        """Ask it to end; kill what has not done so."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._end(grace=40)

    def _end(self, *, grace: float) -> None:
        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self._process.pid)
            self._family = [leader, *leader.children(recursive=True)]
        _, left = psutil.wait_procs(self._family, timeout=grace)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=20)
        self._process.wait()


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """Arguments as words of a command line; True is a switch."""
    words: list[str] = []
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return words


@contextmanager
def open_server(model: Path | str, *, ours: bool = False, **arguments: Any) -> Iterator[Server]:
    """Start a server and give it; it ends with the block. The arguments are those of :class:`Server`."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(model, Path(folder), ours=ours, **arguments)
        try:
            server.start()
            yield server
        finally:
            server.stop()
