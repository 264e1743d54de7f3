"""All checks, one after the other; one that fails in a way nobody thought of costs only itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from agent.doctor.configuration import read_settings
from agent.doctor.findings import Finding
from agent.settings import Settings


def examine(
    *,
    flags: Mapping[str, object] | None = None,
    deep: bool = False,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> list[Finding]:
    """Look at everything; nothing is made or changed.

    Args:
        flags: Settings in the place of those of the environment and the file.
        deep: Take longer: import vLLM in a child process, hash the embedded model, start MCP servers, and
            look at every conversation, which opens the database for writing.
        environment: In the place of the process's own.
        directory: In the place of the current one.
    """
    environment = os.environ if environment is None else environment
    settings, findings = read_settings(flags or {}, environment=environment)
    checks = _checks(settings, deep=deep, environment=environment, directory=directory or Path.cwd())
    for part, check in checks.items():
        findings += _guarded(part, check)
    return findings


def _checks(
    settings: Settings, *, deep: bool, environment: Mapping[str, str], directory: Path
) -> Mapping[str, Callable[[], Iterable[Finding]]]:
    from agent.doctor.database import check_database
    from agent.doctor.device import check_device
    from agent.doctor.engine import check_engine
    from agent.doctor.models import check_models
    from agent.doctor.studio import check_studio
    from agent.doctor.tools import check_tools
    from agent.doctor.versions import check_versions

    server = settings.base_url is not None
    return {
        "versions": partial(check_versions, server=server),
        "device": partial(check_device, server=server),
        "engine": partial(check_engine, settings, deep=deep),
        "models": partial(check_models, settings, deep=deep, environment=environment),
        "database": partial(check_database, settings, deep=deep),
        "tools": partial(check_tools, settings, deep=deep),
        "studio": partial(check_studio, directory),
    }


def _guarded(part: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # a broken package can raise anything, and the other parts matter then most
        what = f"it cannot be looked at: {type(error).__name__}: {error}"
        yield Finding(f"{part}.check", "problem", what, "mend the other problems first, then call this again")
