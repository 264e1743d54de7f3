"""The command and the environment of a server's process.

No secret is in either's visible part: a list of processes shows commands to everybody, and the environment to
the same user alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import agent
from agent.engines.local import ENVIRONMENT
from agent.serving.order import ServerOrder
from agent.serving.watch import ID, IDLE

KEYS = "VLLM_AGENT_SERVER_KEYS"
"""Environment variable with the API keys, one a line. The server takes it away before anything starts."""

_WATCH = "agent.serving.watch.Watch"
# What makes a server answer as an engine in a process of ours does: calls decoded under their schema, usage
# with what came from the cache, and a tokenizer whose control tokens clients can learn.
_ALWAYS = {
    "tool_strict_level": ("--tool-strict-level", "parameter"),
    "enable_prompt_tokens_details": ("--enable-prompt-tokens-details",),
    "shutdown_timeout": ("--shutdown-timeout", "20"),  # what it works on is finished first
    "enable_tokenizer_info_endpoint": ("--enable-tokenizer-info-endpoint",),
}
_FOR_ONE_USER = ("--trust-request-chat-template", "--disable-uvicorn-access-log")


def server_command(
    order: ServerOrder, *, port: int, facts: Path, flags: Path, parent: int | None
) -> list[str]:
    """Return the command.

    Args:
        order: What is wanted.
        port: Where it listens.
        facts: Where it writes what it is.
        flags: Where it writes vLLM's flags.
        parent: The process with which it ends; None for none.
    """
    # -P: a directory called agent, where the user happens to be, is not this package.
    command = [sys.executable, "-P", "-m", "agent.serving", "--facts", str(facts), "--flags", str(flags)]
    if parent is not None:
        command += ["--parent", str(parent)]
    if order.one_process:
        command.append("--one-process")
    if not order.warm:
        command.append("--text-tools")
    if order.wanted:
        command += ["--wanted", json.dumps(dict(order.wanted))]
    return [*command, "--", *vllm_flags(order, port=port)]


def vllm_flags(order: ServerOrder, *, port: int) -> list[str]:
    """Return the flags of ``vllm serve`` for a server, the user's last."""
    flags = ["--model", order.model]
    if "served_model_name" not in order.arguments and os.path.isdir(order.model):
        flags += ["--served-model-name", Path(order.model).name, order.model]
    if order.http:
        flags += ["--host", order.host, "--port", str(port), "--middleware", _WATCH]
        for name, words in _ALWAYS.items():
            if name not in order.arguments:
                flags += words
    if order.warm:
        flags += _FOR_ONE_USER
    return [*flags, *order.words]


def server_environment(
    order: ServerOrder, *, identity: str, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment.

    Args:
        order: What is wanted.
        identity: The server's id.
        environment: In the place of this process's own.
    """
    given = os.environ if environment is None else environment
    root = str(Path(agent.__file__).parents[1])
    path = given.get("PYTHONPATH", "")
    ours = {
        **ENVIRONMENT,
        "VLLM_LOGGING_LEVEL": "INFO",  # the progress of the start is read from it
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    if not order.one_process:
        del ours["VLLM_ENABLE_V1_MULTIPROCESSING"]
    forced = {
        "PYTHONPATH": f"{path}{os.pathsep}{root}" if path else root,
        "VLLM_NO_USAGE_STATS": given.get("VLLM_NO_USAGE_STATS", "1"),
        ID: identity,
    }
    if order.idle_minutes is not None:
        forced[IDLE] = str(order.idle_minutes * 60)
    if order.keys:
        forced[KEYS] = "\n".join(order.keys)
    inherited = {name: value for name, value in given.items() if name != "VLLM_API_KEY"}
    return {**ours, **inherited, **forced}
