"""A process that behaves as a server's does, without a model: its log, its facts, its port, its end.

``FAKE_SERVER`` in the environment says how it goes: ``well`` (the default), ``slow`` (it loads for a second),
``loads`` (for ever), ``fails``, ``killed``, ``stubborn`` (it does not stop) or ``several`` (it ends as
several processes do). Where ``FAKE_SHOWN`` names a directory, each stage lasts until a file of its name is
there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agent.serving.output import failure_line, stage_line
from agent.serving.watch import IDLE, PATH

ID = os.environ["VLLM_AGENT_SERVER_ID"]
INFO = {
    "kind": "remote",
    "model": "fake",
    "max_model_len": 64,
    "chat_template": None,
    "control_tokens": ["<x>"],
    "tool_parser": None,
    "reasoning_parser": None,
    "family": None,
    "tool_problem": "",
    "version": "vLLM fake",
}


def wait_until_shown(stage: str) -> None:
    """Until somebody has seen the stage."""
    while (folder := os.environ.get("FAKE_SHOWN")) and not (Path(folder) / stage).exists():
        time.sleep(0.02)


class Handler(BaseHTTPRequestHandler):
    asked = False

    def do_GET(self) -> None:
        if (idle := os.environ.get(IDLE)) and not Handler.asked:  # from when somebody knows that it runs
            threading.Timer(float(idle), lambda: os._exit(0)).start()
        Handler.asked = True
        body = json.dumps({"id": ID, "running": 0, "idle_seconds": 100.0}).encode()
        self.send_response(200 if self.path in (PATH, "/health") else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--facts", type=Path)
    parser.add_argument("--flags")
    parser.add_argument("--parent")
    parser.add_argument("--wanted")
    parser.add_argument("--one-process", action="store_true")
    parser.add_argument("--text-tools", action="store_true")
    parser.add_argument("vllm", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    port = int(options.vllm[options.vllm.index("--port") + 1])
    how = os.environ.get("FAKE_SERVER", "well")
    print(stage_line("importing"), flush=True)
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif how == "several":
        signal.signal(signal.SIGTERM, lambda *_: threading.Timer(2.0, lambda: os._exit(1)).start())
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    wait_until_shown("importing")
    if how == "slow":
        time.sleep(1.0)
    print("INFO 11-24 23:12:06 [cpu_model_runner.py:68] Starting to load model /m...", flush=True)
    wait_until_shown("loading")
    if how == "slow":
        time.sleep(1.0)
    while how == "loads":
        time.sleep(1.0)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "fails":
        print("Traceback (most recent call last):\nValueError: no such quantization", flush=True)
        print(failure_line("EngineStartError", "ValueError: no such quantization"), flush=True)
        sys.exit(1)
    options.facts.write_text(json.dumps(INFO))
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


main()
