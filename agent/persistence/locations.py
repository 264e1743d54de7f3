"""Where conversations are kept: from what a user writes to a database URL and a private file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from agent.errors import ConfigurationError, DatabaseError

DEFAULT_FILE = "conversations.sqlite"
_SHOWN = 200  # characters of a wrong path in a message
_SQLITE_SUFFIXES = ("-wal", "-shm", "-journal")


def database_url(where: str | os.PathLike[str] | None) -> URL:
    """Turn what the user gave into a URL.

    Args:
        where: ``None`` (a file in the user's data directory), a path, ``:memory:``, ``sqlite:///…`` or
            ``postgresql://…``. A directory that exists gets the default file name.

    Raises:
        ConfigurationError: Looks like a URL and is none, or cannot be a path.
    """
    try:
        return _url(where)
    except ConfigurationError:
        raise
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        shown = repr(where) if len(repr(where)) <= _SHOWN else f"{repr(where)[:_SHOWN]}…"
        raise ConfigurationError(
            f"{shown} is no place for conversations ({getattr(error, 'strerror', None) or error}): give a "
            "path, sqlite:///… or postgresql://…"
        ) from error


def _url(where: str | os.PathLike[str] | None) -> URL:
    if where is None:
        return _file_url(_data_directory() / DEFAULT_FILE)
    if where == ":memory:":
        return URL.create("sqlite", database=":memory:")
    if isinstance(where, str) and "://" in where:
        try:
            # The older name that several hosters and libpq itself use.
            url = make_url(re.sub("^postgres://", "postgresql://", where))
        except (ArgumentError, ValueError):
            raise ConfigurationError(
                f"{without_password(where)!r} is no database URL: give a path, sqlite:///… or postgresql://…"
            ) from None  # the error's own text has the password
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            return _file_url(Path(url.database or ""))
        return url
    path = Path(where).expanduser()
    return _file_url(path / DEFAULT_FILE if path.is_dir() else path)


def prepare_file(url: URL) -> URL:
    """Create the SQLite file and its directory, readable by their owner only.

    SQLite gives its side files the mode of the database, so they are private as well. A file that exists
    keeps its mode.

    Returns:
        The URL to connect to: the same, or one for reading only if the file cannot be written.

    Raises:
        DatabaseError: It cannot be created, or it is a directory.
    """
    path = Path(url.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except IsADirectoryError as error:
        raise DatabaseError(f"{path} is a directory: give the name of a file in it") from error
    except OSError as error:
        if path.is_file() and os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            return _read_only(path)
        raise DatabaseError(
            f"cannot open {path} for conversations: {error.strerror or error}. "
            "Check who owns it and its directory, or give another path"
        ) from error
    return url


def _read_only(path: Path) -> URL:
    query = {"uri": "true", "mode": "ro"}
    if not Path(f"{path}-wal").exists():
        query["immutable"] = "1"  # nobody writes, and there is nowhere to keep SQLite's shared memory
    return URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)


def without_password(where: str) -> str:
    """A place as it may be shown; a path stays as it is."""
    return re.sub(r"(//[^/:@]*):.*@", r"\1:***@", where)


def database_files(url: URL) -> list[Path]:
    """The SQLite file and its side files, those that exist."""
    names = [f"{url.database}{suffix}" for suffix in ("", *_SQLITE_SUFFIXES)]
    return [path for name in names if (path := Path(name)).is_file()]


def _data_directory() -> Path:
    if home := os.environ.get("VLLM_AGENT_HOME"):
        return Path(home).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("vllm-agent"))


def _file_url(path: Path) -> URL:
    name = os.path.abspath(path.expanduser())
    if "\0" in name:
        raise ValueError("a path has no NUL in it")
    os.fsencode(name)  # fails for what no file can be called
    return URL.create("sqlite", database=name)
