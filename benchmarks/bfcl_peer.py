"""The peer of ``bfcl.py``: ``ChatOpenAI`` on vLLM's own server, set up as well as the model lets it be.

The server is told everything that it can be told: ``--enable-auto-tool-choice``, a tool parser, and a chat
template in that parser's format, since a model without a tool format of its own has none. Of vLLM's formats
there is one of each kind that fits a ChatML model: Hermes 2 Pro's, which most such models were trained on,
Python calls, and a JSON list, which SmolLM2's makers document and ``xlam`` reads. (``llama3_json`` refuses a
tokenizer without ``<|python_tag|>``.) With ``--tool-strict-level parameter`` arguments are decoded under the
tools' schemas, as ours are, where a parser has a structural tag; where it has none, vLLM does so itself for
``required``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

_START_SECONDS = 600
_KEY = "a-key-for-the-benchmark"

_TEMPLATES = Path(__file__).with_name("peer")
PARSERS = tuple(sorted(path.stem for path in _TEMPLATES.glob("*.jinja")))
"""vLLM's tool parsers for which there is a template."""


@contextmanager
def open_peer(model: Path, *, max_tokens: int, parser: str) -> Iterator[ChatOpenAI]:
    """Start vLLM's server on loopback and give the peer on it; the server ends with the block.

    Args:
        model: The model's directory.
        max_tokens: Longest answer.
        parser: The tool parser, one of :data:`PARSERS`.

    Raises:
        RuntimeError: The server did not start; the message ends with its log.
    """
    with tempfile.TemporaryDirectory() as scratch:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
        command += [
            "--served-model-name",
            "peer",
            "--host",
            "127.0.0.1",
            "--port",
            address.rpartition(":")[2],
        ]
        command += ["--api-key", _KEY, "--dtype", "float32", "--enforce-eager"]
        command += [
            "--enable-auto-tool-choice",
            "--tool-call-parser",
            parser,
            "--chat-template",
            str(_TEMPLATES / f"{parser}.jinja"),
            "--tool-strict-level",
            "parameter",
        ]
        settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        log = Path(scratch) / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env={**settings, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            _wait_until_healthy(process, address, log)
            yield ChatOpenAI(
                model="peer",
                base_url=f"{address}/v1",
                api_key=SecretStr(_KEY),
                temperature=0.0,
                max_completion_tokens=max_tokens,
                timeout=600,
            )
        finally:
            process.terminate()  # its engine process ends with it
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_healthy(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{address}/health", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise RuntimeError(f"vLLM's server did not start; its log ends with:\n{log.read_text()[-3000:]}")
