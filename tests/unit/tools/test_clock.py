from datetime import UTC, datetime, timedelta

import pytest

from tools import ToolInputError
from tools.builtin.clock import current_time, describe_time, find_zone

MOMENT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("UTC", "UTC"),
        ("", "UTC"),
        ("utc", "UTC"),
        ("Europe/Paris", "Europe/Paris"),
        ("europe/paris", "Europe/Paris"),
        ("America/New York", "America/New_York"),
        ("Tokyo", "Asia/Tokyo"),
        ("new york", "America/New_York"),
        ("New_York", "America/New_York"),
        ("Tokyo, Japan", "Asia/Tokyo"),
        ("San Francisco", "America/Los_Angeles"),
        ("Beijing", "Asia/Shanghai"),
        ("Washington D.C.", "America/New_York"),
        ("Japan", "Japan"),
        ("Germany", "Europe/Berlin"),
        ("UTC+2", "UTC+02:00"),
        ("GMT-5", "UTC-05:00"),
        ("+05:30", "UTC+05:30"),
    ],
)
def test_zones_by_any_name(text, name):
    zone, found = find_zone(text)
    assert found == name
    assert MOMENT.astimezone(zone).utcoffset() is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Tokio", "did you mean Asia/Tokyo"),
        ("Europe/Pariss", "Europe/Paris"),
        ("Xyzzy", "Europe/Paris, a city, or UTC"),
        ("../../etc/passwd", "no time zone"),
        ("/etc/localtime", "no time zone"),
        ("UTC+20", "up to 14 hours"),
        ("\0", "no time zone"),
        ("a" * 5000, "no time zone"),
    ],
)
def test_unknown_zones_are_refused_with_close_ones(text, words):
    with pytest.raises(ToolInputError, match=words):
        find_zone(text)


def test_every_place_we_name_has_a_zone():
    from tools.builtin.clock import _PLACES

    for aliases in _PLACES.values():
        for alias in aliases:
            find_zone(alias)


def test_the_time_is_readable_and_exact():
    zone, name = find_zone("Tokyo")
    said = describe_time(MOMENT.astimezone(zone), name)
    assert said == "It is 21:00 on Sunday, 22 November 2026 in Asia/Tokyo (2026-11-22T21:00:00+09:00)."


def test_the_tool_tells_the_time_now():
    said = current_time.invoke({"place": "UTC"})
    told = datetime.fromisoformat(said.partition("(")[2].rstrip(")."))
    assert abs(datetime.now(UTC) - told) < timedelta(minutes=1)
    assert current_time.invoke({}).count("UTC") == 1


@pytest.mark.parametrize("word", ["today", "now", "current_time", ""])
def test_a_word_that_names_no_place_means_utc(word: str) -> None:
    assert " in UTC (" in current_time.invoke({"place": word})
