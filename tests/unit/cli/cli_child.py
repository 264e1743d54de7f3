"""A process that is ``vllm-agent`` on a scripted engine.

Arguments: a script as JSON, then the command line. A file that ``CLI_ASKED`` names grows by a byte whenever
an answer is asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import termios
from typing import Any

import agent.app
from agent import ChatVLLM
from agent.cli.main import main
from agent.engines import Reply, ScriptedEngine

with contextlib.suppress(OSError):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C in a terminal of its own reaches it


def answering(item: Any) -> Any:
    def answer(_: Any) -> Any:
        if asked := os.environ.get("CLI_ASKED"):
            with open(asked, "a") as file:
                file.write("x")
        return item if isinstance(item, str) else Reply(**item)

    return answer


engine = ScriptedEngine([answering(item) for item in json.loads(sys.argv.pop(1))])


def build_model(settings: Any, **_: Any) -> ChatVLLM:
    return ChatVLLM(engine=engine)


agent.app.build_model = build_model
main()
