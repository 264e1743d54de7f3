"""The clock."""

from __future__ import annotations

import difflib
import functools
import re
import zoneinfo
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from tools.decorator import tool
from tools.errors import ToolInputError
from tools.policy import ToolPolicy

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

# Places that people name and the time-zone database does not: capitals and large cities, by their zone.
_PLACES = {
    "America/Chicago": ("dallas", "houston", "austin", "central time", "cst"),
    "America/Los_Angeles": ("san francisco", "seattle", "san diego", "las vegas", "california", "pst", "pdt"),
    "America/New_York": (
        "washington",
        "washington dc",
        "boston",
        "miami",
        "atlanta",
        "philadelphia",
        "edt",
        "nyc",
    ),
    "America/Toronto": ("ottawa",),
    "America/Sao_Paulo": ("rio de janeiro", "brasilia", "brazil"),
    "Asia/Kolkata": ("delhi", "new delhi", "mumbai", "bangalore", "bengaluru", "chennai", "india", "ist"),
    "Asia/Riyadh": ("mecca", "saudi arabia"),
    "Asia/Shanghai": ("beijing", "shenzhen", "guangzhou", "china"),
    "Asia/Tokyo": ("osaka", "kyoto", "jst"),
    "Asia/Dubai": ("abu dhabi",),
    "Asia/Ho_Chi_Minh": ("hanoi", "vietnam"),
    "Australia/Sydney": ("canberra",),
    "Africa/Johannesburg": ("cape town", "pretoria", "south africa"),
    "Europe/Berlin": ("munich", "hamburg", "frankfurt", "cologne", "germany"),
    "Europe/Zurich": ("geneva", "bern", "switzerland"),
    "Europe/Rome": ("milan", "naples", "italy"),
    "Europe/Madrid": ("barcelona", "spain"),
    "Europe/Paris": ("lyon", "marseille", "france"),
    "Europe/London": ("manchester", "edinburgh", "england", "uk", "bst"),
    "Europe/Istanbul": ("ankara",),
    "Europe/Moscow": ("saint petersburg",),
    "Pacific/Auckland": ("wellington",),
    "UTC": ("gmt", "z"),
}
_NOWHERE = frozenset({"", "now", "today", "here", "local", "current time", "place", "none"})
_OFFSET = re.compile(r"(?:utc|gmt)?\s*([+-])(\d{1,2})(?::?([0-5]\d))?")


@tool(policy=ToolPolicy(timeout=10, idempotent=True))
def current_time(place: str = "UTC") -> str:
    """Tell the current date and time in a city or time zone.

    Args:
        place: City or time zone.
    """
    # A small model that was asked for no place still fills in a word.
    zone, name = find_zone("UTC" if _key(place) in _NOWHERE else place)
    return describe_time(datetime.now(zone), name)


def describe_time(now: datetime, place: str) -> str:
    """The time in words and in ISO 8601, in English whatever the locale."""
    date = f"{_DAYS[now.weekday()]}, {now.day} {_MONTHS[now.month - 1]} {now.year}"
    return f"It is {now:%H:%M} on {date} in {place} ({now.isoformat(timespec='seconds')})."


def find_zone(text: str) -> tuple[tzinfo, str]:
    """The time zone that ``text`` means, and its proper name.

    Args:
        text: An IANA name, a city, or an offset such as ``UTC+2``; case does not matter, and a blank is as
            good as an underscore.

    Raises:
        ToolInputError: Nothing is known by that name; close ones are given.
    """
    wanted = _key(text)
    if wanted in ("", "utc"):
        return UTC, "UTC"
    if (offset := _OFFSET.fullmatch(wanted)) is not None:
        return _fixed(offset)
    known = _zones()
    # "Tokyo, Japan" is Tokyo
    name = known.get(wanted) or known.get(wanted.partition(",")[0].strip())
    if name is None:
        found = difflib.get_close_matches(wanted, known, n=3, cutoff=0.6)
        near = list(dict.fromkeys(known[key] for key in found))
        hint = (
            f"did you mean {' or '.join(near)}?" if near else "give a name like Europe/Paris, a city, or UTC."
        )
        raise ToolInputError(f"there is no time zone {text!r}: {hint}")
    return zoneinfo.ZoneInfo(name), name


def _fixed(offset: re.Match[str]) -> tuple[tzinfo, str]:
    sign, hours, minutes = offset.groups()
    if int(hours) > 14:  # no place on earth is further from UTC
        raise ToolInputError(f"there is no time zone {offset[0]!r}: offsets go up to 14 hours")
    length = timedelta(hours=int(hours), minutes=int(minutes or 0))
    zone = timezone(length if sign == "+" else -length)
    return zone, str(zone)


@functools.cache
def _zones() -> dict[str, str]:
    """Zone names by everything that they are known by; a full name goes before the city in another."""
    names = sorted(zoneinfo.available_timezones())
    cities = {_key(name.rpartition("/")[2]): name for name in reversed(names) if "/" in name}
    places = {alias: zone for zone, aliases in _PLACES.items() for alias in aliases}
    return cities | places | {_key(name): name for name in names}


def _key(text: str) -> str:
    return " ".join(text.casefold().replace("_", " ").replace(".", "").split())
