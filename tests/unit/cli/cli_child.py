"""A process that is ``vllm-agent`` on a scripted engine.

Arguments: a script as JSON, then the command line.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sys
import termios
from typing import Any

import agent.app
from agent import ChatVLLM
from agent.cli.main import main
from agent.engines import Reply, ScriptedEngine

with contextlib.suppress(OSError):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C in a terminal of its own reaches it

script = json.loads(sys.argv.pop(1))
engine = ScriptedEngine([item if isinstance(item, str) else Reply(**item) for item in script])


def build_model(settings: Any, **_: Any) -> ChatVLLM:
    return ChatVLLM(engine=engine)


agent.app.build_model = build_model
main()
