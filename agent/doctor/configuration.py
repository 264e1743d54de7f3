"""The settings: where they come from, and whether they can be read. Their values are not shown."""

from __future__ import annotations

import difflib
import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from agent.doctor.findings import Finding
from agent.errors import ConfigurationError
from agent.settings import CONFIG_VARIABLE, PREFIX, SECRETS, Settings, config_file, load_settings

_NAMES = tuple(each.name for each in fields(Settings))
_KNOWN = tuple(f"{PREFIX}{name}" for name in ("CONFIG", "CACHE", "FILES", *(each.upper() for each in _NAMES)))


def read_settings(
    flags: Mapping[str, object], *, environment: Mapping[str, str]
) -> tuple[Settings, list[Finding]]:
    """The settings of a command, or, where some are wrong, as many of them as can be read.

    Args:
        flags: As of :func:`agent.settings.load_settings`.
        environment: In the place of the process's own.
    """
    findings: list[Finding] = []
    without_file = {**environment, CONFIG_VARIABLE: os.devnull}
    without_any = {CONFIG_VARIABLE: os.devnull}
    for tried in (environment, without_file, without_any):
        try:
            settings = load_settings(flags, environment=tried)
        except ConfigurationError as error:
            if str(error) not in {each.what for each in findings}:
                findings.append(Finding("settings.values", "problem", str(error), _mend(error, environment)))
        else:
            break
    else:
        settings = Settings()
    if findings:
        what = "what is wrong is left out; everything else was looked at with what remains"
        findings.append(
            Finding("settings.left-out", "warning", what, "mend the settings, and call this again")
        )
    return settings, [*_sources(environment), *findings]


def _mend(error: ConfigurationError, environment: Mapping[str, str]) -> str:
    said = str(error)
    for variable in environment:
        if variable.startswith(PREFIX) and said.startswith(variable):
            return f"unset {variable}"
    if said.startswith("the option"):
        return "give another value"
    return f"${{EDITOR:-vi}} {shlex.quote(str(config_file(environment)))}"


def _sources(environment: Mapping[str, str]) -> list[Finding]:
    found = []
    path = config_file(environment)
    if path.is_file():
        found.append(_file(path))
    else:
        found.append(Finding("settings.file", "not used", f"no {path}"))
    # Set to nothing counts as not set.
    names = sorted(name for name, value in environment.items() if name.startswith(PREFIX) and value)
    if names:
        found.append(Finding("settings.variables", "ok", f"set: {', '.join(names)}"))
    else:
        found.append(Finding("settings.variables", "not used", f"no {PREFIX}… variable is set"))
    for name in names:
        if name not in _KNOWN or name == f"{PREFIX}VLLM":
            close = difflib.get_close_matches(name, _KNOWN, n=1)
            hint = f": did you mean {close[0]}?" if close and close[0] != name else ""
            what = f"nothing reads the variable {name}{hint}"
            found.append(Finding("settings.variable", "warning", what, f"unset {name}"))
    return found


def _file(path: Path) -> Finding:
    try:
        text, mode = path.read_text(encoding="utf-8", errors="replace"), path.stat().st_mode
    except OSError:  # reported where it is loaded
        return Finding("settings.file", "ok", str(path))
    has_secret = any(line.lstrip().startswith(SECRETS) for line in text.splitlines())
    if has_secret and mode & (stat.S_IRGRP | stat.S_IROTH):
        what = f"{path} holds a key, and other users of this machine can read it"
        return Finding("settings.file", "warning", what, f"chmod 600 {shlex.quote(str(path))}")
    return Finding("settings.file", "ok", str(path))
