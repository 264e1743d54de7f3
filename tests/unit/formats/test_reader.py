"""Reading calls out of text: the same result however it is split, and nothing is ever lost."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.formats.text.reader import MARKER, CallReader


def read(*pieces: str) -> tuple[str, list[tuple[str, str]]]:
    """Feed the pieces; return the content and the calls as (name, arguments)."""
    numbers = iter(range(1000))
    reader = CallReader(lambda: f"id-{next(numbers)}")
    content, calls = "", dict[int, list[Any]]()
    deltas = [delta for piece in pieces for delta in reader.feed(piece)] + reader.finish()
    for delta in deltas:
        content += delta.get("content", "")
        for call in delta.get("tool_calls", ()):
            known = calls.setdefault(call["index"], ["", ""])
            known[0] = call["function"].get("name", known[0])
            known[1] += call["function"]["arguments"]
    assert list(calls) == list(range(len(calls))) == list(range(reader.calls))
    return content, [(name, arguments) for name, arguments in calls.values()]


CALL = 'TOOL_CALL: {"name": "add", "arguments": {"a": 1, "b": [2, {"c": "}"}]}}'


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("Hello there.", "Hello there.", []),
        (CALL, "", [("add", '{"a": 1, "b": [2, {"c": "}"}]}')]),
        (f"Let me see.\n{CALL}\n", "Let me see.", [("add", '{"a": 1, "b": [2, {"c": "}"}]}')]),
        (f"{CALL}\n{CALL}", "", [("add", '{"a": 1, "b": [2, {"c": "}"}]}')] * 2),
        (f"{CALL}\nDone.", "Done.", [("add", '{"a": 1, "b": [2, {"c": "}"}]}')]),
        ('TOOL_CALL:{"name":"f","arguments":{}}', "", [("f", "{}")]),
        ('TOOL_CALL: {"name": "f", "parameters": {"x": 1}}', "", [("f", '{"x": 1}')]),
        ('TOOL_CALL: {"arguments": {"x": 1}, "name": "f"}', "", [("f", '{"x": 1}')]),
        ('TOOL_CALL: {"name": "f"}', "", [("f", "{}")]),
        ("Write TOOL_CALL: and then JSON.", "Write TOOL_CALL: and then JSON.", []),
        ("I like TOOLS", "I like TOOLS", []),
        ("TOOL_CALL:", "TOOL_CALL:", []),
        ('TOOL_CALL: {"name": "é\\n", "arguments": {"q": "ü\\"}"}}', "", [("é\n", '{"q": "ü\\"}"}')]),
        ("  spaced  ", "spaced", []),
    ],
)
def test_texts(text: str, content: str, calls: list[tuple[str, str]]) -> None:
    assert read(text) == (content, calls)
    assert read(*text) == (content, calls)


@pytest.mark.parametrize("cut", range(len('TOOL_CALL: {"name": "add"'), len(CALL)))
def test_a_call_that_is_cut_off_is_never_whole(cut: int) -> None:
    _, calls = read(CALL[:cut])
    assert len(calls) == 1
    name, arguments = calls[0]
    assert name == "add"
    if cut < len(CALL) - 1:  # only the outer bracket is missing: the arguments are all there
        with pytest.raises(ValueError, match=r"."):
            json.loads(arguments)


@pytest.mark.parametrize(
    "text",
    [
        'TOOL_CALL: {"name": 3, "arguments": {}}',
        "TOOL_CALL: {nonsense}",
        "TOOL_CALL: {}",
        'TOOL_CALL: {"a": {',
    ],
)
def test_what_cannot_be_read_becomes_an_unreadable_call_with_its_text(text: str) -> None:
    _, calls = read(text)
    assert len(calls) == 1
    assert text.removeprefix("TOOL_CALL: ") in calls[0][1]
    with pytest.raises(ValueError, match=r"."):
        json.loads(calls[0][1])


pieces_of_text = st.lists(
    st.one_of(
        st.sampled_from(
            [MARKER, " ", "\n", "{", "}", '"', "\\", '{"name": "', '", "arguments": ', CALL, "TOOL"]
        ),
        st.text(max_size=8),
    ),
    max_size=12,
)


@given(pieces_of_text, st.data())
def test_any_text_in_any_pieces_reads_the_same(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    whole = read(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    bounds = [0, *cuts, len(text)]
    assert read(*(text[a:b] for a, b in pairwise(bounds))) == whole
    assert read(*text) == whole


@given(pieces_of_text)
def test_no_call_is_made_up(pieces: list[str]) -> None:
    text = "".join(pieces)
    _, calls = read(text)
    assert len(calls) <= text.count(MARKER)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.text(min_size=1, max_size=12),
    st.dictionaries(st.text(max_size=6), json_values, max_size=4),
    st.booleans(),
)
def test_every_call_comes_back(name: str, arguments: dict[str, Any], ascii_only: bool) -> None:
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=ascii_only)
    _, calls = read(*f"Text first. TOOL_CALL: {call}\n")
    assert [(found, json.loads(text)) for found, text in calls] == [(name, arguments)]


# -- what a model may write, and what must not come of it --------------------------------------------------

names = st.text(min_size=1, max_size=12)
objects = st.dictionaries(st.text(max_size=6), json_values, max_size=4)
calls_of_models = st.builds(
    lambda name, arguments, ascii_only, spaces, key: (
        "TOOL_CALL:"
        + spaces
        + json.dumps({"name": name, key: arguments}, ensure_ascii=ascii_only, indent=len(spaces) or None)
    ),
    names,
    objects,
    st.booleans(),
    st.sampled_from(["", " ", "\n  "]),
    st.sampled_from(["arguments", "parameters"]),
)
anything = st.lists(
    st.one_of(
        calls_of_models,
        calls_of_models.flatmap(lambda call: st.integers(0, len(call)).map(lambda cut: call[:cut])),
        st.text(max_size=10),
        st.sampled_from(
            [MARKER, "\\", "\\u12", '\\"', "\ud800", "\x00", "{}", "[[", '{"name":', "\u2028", "🙂"]
        ),
    ),
    max_size=8,
).map("".join)


@given(anything, st.data())
def test_any_output_reads_the_same_however_it_is_split(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    bounds = [0, *cuts, len(text)]
    assert read(*(text[a:b] for a, b in pairwise(bounds))) == read(text) == read(*text)


@given(anything)
def test_a_call_is_what_the_text_says_behind_a_marker(text: str) -> None:
    _, calls = read(text)
    assert len(calls) <= text.count(MARKER)
    behind = text.partition(MARKER)[2]
    decoder = json.JSONDecoder()
    said = []
    for start in (place for place, character in enumerate(behind) if character == "{"):
        with suppress(ValueError):
            said.append(decoder.raw_decode(behind, start)[0])
    for name, arguments in calls:
        value = loaded(arguments)
        if isinstance(value, dict):  # what is none becomes an invalid call, which nobody executes
            assert value in said or loaded(json.dumps(value)) in [one.get("arguments") for one in said]
            literals = [json.dumps(name, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
            assert any(literal in behind for literal in [name, *literals])


def loaded(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text)
    return None


@given(st.lists(st.tuples(names, objects), min_size=1, max_size=4), st.text(max_size=20))
def test_several_calls_come_back_in_order(calls: list[tuple[str, dict[str, Any]]], around: str) -> None:
    assume(MARKER not in around and not MARKER.startswith(around[-1:] or "?"))
    lines = [f"TOOL_CALL: {json.dumps({'name': name, 'arguments': value})}" for name, value in calls]
    content, found = read(*"\n".join([around, *lines]))
    assert [(name, json.loads(text)) for name, text in found] == calls
    assert content == around.strip()


@given(st.text(max_size=200).filter(lambda text: MARKER not in text))
def test_text_without_a_marker_is_content(text: str) -> None:
    assert read(*text) == (text.strip(), [])


def test_deep_nesting_breaks_nothing() -> None:
    deep = "[" * 100_000
    for text in (f'TOOL_CALL: {{"name": "f", "arguments": {{"a": {deep}', f'TOOL_CALL: {{"a": {deep}'):
        content, [(_, arguments)] = read(text)
        assert content == ""
        with pytest.raises((ValueError, RecursionError)):
            json.loads(arguments)
    # An argument of its own, so that the call is read when it is whole.
    whole = f'TOOL_CALL: {{"other": 1, "name": "f", "arguments": {{"a": {deep}{"]" * 100_000}}}}}'
    assert len(read(whole)[1]) == 1
