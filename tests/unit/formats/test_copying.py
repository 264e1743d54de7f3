"""Strings that stand in the conversation, word for word."""

from __future__ import annotations

import pytest

from agent.formats.text.copying import copied_string_rules, words_of
from agent.formats.text.grammar import call_grammar

xgrammar = pytest.importorskip("xgrammar", reason="comes with vLLM: install the cpu or gpu extra")

ASK = {
    "type": "function",
    "function": {
        "name": "ask",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "unit": {"enum": ["km"]}},
            "required": ["text"],
        },
    },
}


def accepts(messages: list[dict[str, str]], arguments: str) -> bool:
    from xgrammar.testing import _is_grammar_accept_string

    rules = copied_string_rules(words_of(messages))
    grammar = xgrammar.Grammar.from_ebnf(call_grammar([ASK], calls="one", strings=rules))
    line = f'TOOL_CALL: {{"name": "ask", "arguments": {arguments}}}'
    return bool(_is_grammar_accept_string(grammar, line))


QUESTION = 'Is "Los Angeles" (LA) far from São Paulo, by x^2 = -1.5?\nSay C:\\temp.'


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("Los Angeles", True),
        ("LA", True),
        ("(LA) far", True),
        ("São Paulo", True),
        ("x^2 = -1.5", True),
        ("far from São Paulo", True),
        ("far from São Paulo, by", False),
        ("from São Paulo", False),
        ("Say C:", True),
        ("Paulo by", False),
        ("Las Vegas", False),
        ("Los Ange", False),
        ("Los Angeles ", False),
        (" far", False),
        ("", False),
        ("1.5?\\nSay", False),
        ("temp", True),
        ("C:temp", False),
    ],
)
def test_only_neighbouring_words_can_be_copied(text: str, fits: bool) -> None:
    assert accepts([{"role": "user", "content": QUESTION}], f'{{"text": "{text}"}}') is fits


def test_other_kinds_of_values_are_free() -> None:
    assert accepts([{"role": "user", "content": "How far?"}], '{"text": "far", "unit": "km"}')


def test_users_and_results_are_copied_from_and_nobody_else() -> None:
    conversation = [
        {"role": "system", "content": "Secret rules."},
        {"role": "user", "content": "First question"},
        {"role": "assistant", "content": "An answer"},
        {"role": "tool", "content": "A result"},
        {"role": "user", "content": "Second question"},
    ]
    for text, fits in {"First": True, "result": True, "Second question": True}.items():
        assert accepts(conversation, f'{{"text": "{text}"}}') is fits
    for text in ("Secret", "answer", "question A", "result Second"):
        assert not accepts(conversation, f'{{"text": "{text}"}}')


def test_of_long_conversations_the_latest_words_count() -> None:
    conversation = [{"role": "user", "content": "old " * 1000}, {"role": "user", "content": "new"}]
    rules = copied_string_rules(words_of(conversation))
    assert len(rules) < 500
    assert accepts(conversation, '{"text": "new"}')


def test_nothing_to_copy() -> None:
    assert copied_string_rules(words_of([{"role": "user", "content": ' "\n" '}])) == {}
