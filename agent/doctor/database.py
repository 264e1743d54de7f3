"""The conversations: where they are, and whether they can be opened. No file is made for it."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agent.app import database_location, open_store
from agent.doctor.findings import Finding, command, pip
from agent.doctor.installed import find
from agent.errors import AgentError, ConfigurationError, MissingExtraError
from agent.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_KEY_BYTES = (16, 24, 32)
_SECONDS = 1.0
_MIB = 2**20


def check_database(settings: Settings, *, deep: bool) -> Iterator[Finding]:
    """Look at the database in the settings.

    Args:
        settings: What a command would have.
        deep: Look at every conversation too, as `threads doctor` does.
    """
    from agent.persistence.locations import database_url

    yield from _encryption(settings.encryption_key)
    try:
        url = database_url(database_location(settings))
    except ConfigurationError as error:
        yield Finding("database.place", "problem", str(error), "correct database in the settings")
        return
    where = url.set(query={}).render_as_string(hide_password=True).removeprefix("sqlite:///")
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        if url.database in (None, "", ":memory:"):
            yield Finding("database.place", "ok", "in memory: nothing is kept when a command ends")
            return
        if not path.exists():
            yield _to_be_made(path)
            return
        yield from _permissions(path)
        if path.is_dir() or not os.access(path, os.R_OK):
            return
    yield from _inspected(settings, url, where, deep=deep)


def _to_be_made(path: Path) -> Finding:
    parent = next(each for each in path.parents if each.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return Finding(
            "database.place", "not used", f"{path} is not there yet; the first conversation makes it"
        )
    what = f"{path} cannot be made: {parent} cannot be written"
    return Finding(
        "database.place",
        "problem",
        what,
        f"chmod u+rwx {shlex.quote(str(parent))}  # or set VLLM_AGENT_DATABASE",
    )


def _permissions(path: Path) -> Iterator[Finding]:
    quoted = shlex.quote(str(path))
    if path.is_dir():
        mend = f"export VLLM_AGENT_DATABASE={shlex.quote(str(path / 'conversations.sqlite'))}"
        yield Finding("database.place", "problem", f"{path} is a directory", mend)
    elif not os.access(path, os.R_OK):
        yield Finding(
            "database.place",
            "problem",
            f"{path} cannot be read by you",
            f"ls -l {quoted} && chmod u+rw {quoted}",
        )
    elif not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        what = f"{path} can only be read: conversations are shown, and none can go on"
        mend = f"chmod u+w {quoted} {shlex.quote(str(path.parent))}"
        yield Finding("database.permissions", "warning", what, mend)
    elif (mode := path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        what = f"other users of this machine may get at {path} ({stat.filemode(mode)})"
        yield Finding("database.permissions", "warning", what, f"chmod 600 {quoted}")
    else:
        yield Finding("database.permissions", "ok", "only you can read it")


def _inspected(settings: Settings, url: URL, where: str, *, deep: bool) -> Iterator[Finding]:
    from agent.persistence.inspection import inspect_database
    from agent.persistence.tables import REVISIONS

    try:
        found = inspect_database(url, timeout=_SECONDS, check_seconds=_SECONDS)
    except MissingExtraError as error:
        yield Finding("database.place", "problem", str(error), pip("install", "vllm-agent[postgres]"))
        return
    except AgentError as error:
        yield Finding("database.place", "problem", str(error), _elsewhere(where))
        return
    yield Finding("database.place", "ok", f"{where} ({found.size / _MIB:.1f} MiB)")
    if found.damage is not None:
        yield Finding("database.integrity", "problem", f"it is damaged: {found.damage}", _recover(where))
    elif not found.checked:
        what = f"it is too large to be checked in {_SECONDS:g} s"
        yield Finding("database.integrity", "not used", what, command("threads", "doctor"))
    else:
        yield Finding(
            "database.integrity", "ok", "it can be read" if "://" in where else "SQLite finds nothing wrong"
        )
    if found.foreign:
        what = f"it holds another program's tables: {', '.join(found.foreign)}"
        yield Finding(
            "database.schema",
            "problem",
            what,
            f"{command('threads', 'import', where)}  # into another --database",
        )
    elif found.revision is None:
        yield Finding(
            "database.schema", "not used", "no tables of ours yet; the first conversation makes them"
        )
    elif found.revision not in REVISIONS:
        what = f"schema {found.revision} is of a newer vllm-agent; this one knows up to {REVISIONS[-1]}"
        yield Finding("database.schema", "problem", what, pip("install", "--upgrade", "vllm-agent"))
    elif found.revision != REVISIONS[-1]:
        what = f"schema {found.revision}; the next command brings it to {REVISIONS[-1]}"
        yield Finding("database.schema", "warning", what, command("threads", "list"))
    else:
        yield Finding("database.schema", "ok", f"schema {found.revision}")
        if deep and found.damage is None:
            yield _conversations(settings)


def _conversations(settings: Settings) -> Finding:
    name = "database.conversations"
    try:
        with open_store(settings) as store:
            wrong = [each for each in store.doctor() if each.is_wrong]
    except AgentError as error:
        return Finding(name, "problem", str(error), command("threads", "doctor"))
    if not wrong:
        return Finding(name, "ok", "every conversation is whole")
    first = wrong[0]
    what = f"{len(wrong)} things are wrong, the first: {first.thread_id or ''} {first.what}".replace(
        "  ", " "
    )
    return Finding(name, "problem", what, command("threads", "doctor", "--mend"))


def _encryption(key: str | None) -> Iterator[Finding]:
    if key is None:
        return
    if find("pycryptodome") is None:
        what = "an encryption key is set, and the extra encryption is not installed"
        yield Finding("database.encryption", "problem", what, pip("install", "vllm-agent[encryption]"))
    elif len(key.encode()) not in _KEY_BYTES:
        what = f"the encryption key has {len(key.encode())} bytes: 16, 24 or 32 are needed"
        yield Finding(
            "database.encryption", "problem", what, "correct VLLM_AGENT_ENCRYPTION_KEY or encryption_key"
        )
    else:
        yield Finding("database.encryption", "ok", "what is said is encrypted, and cannot be searched")


def _elsewhere(where: str) -> str:
    if "://" in where:
        return "correct database in the settings"
    quoted, moved = shlex.quote(where), shlex.quote(f"{where}.moved")
    return f"mv {quoted} {moved}  # a new one is made; or set VLLM_AGENT_DATABASE to another"


def _recover(where: str) -> str:
    quoted, saved = shlex.quote(where), shlex.quote(f"{where}.saved")
    return f"sqlite3 {quoted} .recover | sqlite3 {saved}  # or restore a copy"
