"""What `agent.chat.patterns` says about xgrammar, asked of xgrammar."""

from __future__ import annotations

import json
import re

import pytest

from agent.chat.patterns import held, readable

pytest.importorskip("xgrammar")

UNHELD = [
    *(r"^\p{L}+$", r"^[\p{L}]+$", r"^\P{Lu}$", r"^(?=.*a)b$", r"(?<!a)b", r"^(a)\1$", r"^(a)(b)(c)\3$"),
    *(r"^(?P<x>a)$", r"^(?<x>a)$", r"^(?i:a)$", r"^(?>a)b$", r"^(?#why)a$", r"\ba\b", r"\Ba", r"\Aa\Z"),
    *(r"^\101$", r"^\U00000041$", r"^\N{DIGIT ONE}$", r"^[]a]$", r"^[^]a]$", r"^a{,2}$", r"^{a}$"),
    *("(", "^[z-a]$", "^a{2,1}$", r"^a{99999999999}$", '^"$', r"^\"$", r"^\\$", r"^[\\]$", r"^\x22$"),
    *(r"^\u005C$", r"^\n$", r"^\x0a$", r"^\0$"),
]
HELD = {
    r"^(?:a|b)+$": "abba",
    r"^\(?\d{3}\)?-\d{2,}$": "(123)-45",
    r"^[\w.-]+@[\w-]+\.\w{2,4}$": "a.b@c-d.org",
    r"^https?:\/\/[^\s\/$.?#].[^\s]*$": "http://ab",
    r"^[\u4e00-\u9fff]+$": "中文",
    r"^\x41\u0042\_\@$": "AB_@",
    r"^a+?b*?c??$": "ab",
    r"^\D\W\S$": "a-b",
    r"^[^\d]\{[^x]\}$": "a{b}",
}


@pytest.mark.parametrize("pattern", UNHELD)
def test_what_is_refused_or_misread_is_not_held(pattern: str) -> None:
    assert not held(pattern)


@pytest.mark.parametrize("pattern", HELD)
def test_what_is_held_is_read_as_python_reads_it(pattern: str) -> None:
    import xgrammar
    from xgrammar.testing import _is_grammar_accept_string as accepts

    grammar = xgrammar.Grammar.from_json_schema(json.dumps({"type": "string", "pattern": pattern}))
    assert held(pattern)
    assert re.search(pattern, HELD[pattern])
    assert accepts(grammar, json.dumps(HELD[pattern], ensure_ascii=False))
    assert not accepts(grammar, '"%"')


def test_what_python_reads() -> None:
    assert readable("^(?=a)")
    assert not any(map(readable, (r"\p{L}", "(", 5, "a{99999999999}")))
