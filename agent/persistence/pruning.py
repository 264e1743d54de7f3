"""Which conversations to let go: by age, by number, by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from agent.errors import ConfigurationError
from agent.persistence import given


def choose(
    used: Sequence[tuple[str, str]],
    *,
    older_than: str | datetime | timedelta | None,
    keep: int | None,
    sizes: Mapping[str, int] | None,
    max_bytes: int | None,
) -> list[str]:
    """Choose conversations; one has to meet every condition that is given.

    Args:
        used: Thread ids and when they were last used (ISO 8601, UTC), the last used first.
        older_than: Last used before this time, or longer ago than this.
        keep: All but this many of the last used.
        sizes: Bytes by thread id.
        max_bytes: The least recently used, until the rest is not larger.

    Raises:
        ConfigurationError: No condition, or one that is no number, no time or no age. A wrong one must never
            count as one that everything meets.
    """
    if older_than is None and keep is None and max_bytes is None:
        raise ConfigurationError(
            "prune what? Give older_than= (an age or a time), keep= (a number) or max_bytes="
        )
    for name, number in (("keep", keep), ("max_bytes", max_bytes)):
        if number is not None:
            given.number(f"prune {name}", number)
    before = None if older_than is None else _moment(older_than)
    beyond = set() if max_bytes is None else _too_much(used, sizes or {}, max_bytes)
    return [
        thread_id
        for place, (thread_id, at) in enumerate(used)
        if (keep is None or place >= keep)
        and (before is None or at < before)
        and (max_bytes is None or thread_id in beyond)
    ]


def _too_much(used: Sequence[tuple[str, str]], sizes: Mapping[str, int], most: int) -> set[str]:
    left = sum(sizes.get(thread_id, 0) for thread_id, _ in used)
    chosen = set()
    for thread_id, _ in reversed(used):
        if left <= most:
            break
        left -= sizes.get(thread_id, 0)
        chosen.add(thread_id)
    return chosen


def _moment(given: str | datetime | timedelta) -> str:
    """A time as it is stored, so that text order is time order."""
    try:
        if isinstance(given, timedelta):
            if given < timedelta(0):
                raise ValueError("an age is not negative")
            given = datetime.now(UTC) - given
        elif isinstance(given, str):
            told = datetime.fromisoformat(given)
            given = told if told.tzinfo else told.replace(tzinfo=UTC)
        if not isinstance(given, datetime):
            raise TypeError("it is neither an age nor a time")
        return given.astimezone(UTC).isoformat(timespec="microseconds")
    except (OverflowError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"prune older_than={given!r}: give a timedelta, a datetime, or a time in ISO 8601 such as "
            f"'2026-01-31' ({error})"
        ) from error
