"""Which conversations to let go: by age, by number, by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from agent.errors import ConfigurationError


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
        ConfigurationError: No condition, or one that nothing can meet.
    """
    if older_than is None and keep is None and max_bytes is None:
        raise ConfigurationError(
            "prune what? Give older_than= (an age or a time), keep= (a number) or max_bytes="
        )
    for name, number in (("keep", keep), ("max_bytes", max_bytes)):
        if number is not None and number < 0:
            raise ConfigurationError(f"prune {name}={number}: give 0 or more")
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
    if isinstance(given, timedelta):
        given = datetime.now(UTC) - given
    if isinstance(given, datetime):
        aware = given if given.tzinfo else given.astimezone()
        return aware.astimezone(UTC).isoformat(timespec="microseconds")
    return given
