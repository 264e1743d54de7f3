"""Strings that stand in the conversation, word for word."""

from __future__ import annotations

import pytest

from agent.formats.text.copying import copied_string_rules, said, words_of
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


def arrays(items: str) -> dict[str, object]:
    parameters = {
        "type": "object",
        "properties": {"list": {"type": "array", "items": {"type": items}}},
        "required": ["list"],
    }
    return {"type": "function", "function": {"name": "ask", "parameters": parameters}}


@pytest.mark.parametrize(
    ("items", "value", "fits"),
    [
        ("integer", "[85, 90, 88]", True),
        ("integer", "[90]", True),
        ("integer", "[]", True),
        ("integer", "[-85]", True),
        ("integer", "[85, 88]", False),
        ("integer", "[88, 85]", False),
        ("integer", "[88, 7]", True),
        ("integer", "[2.5]", False),
        ("number", "[88, 2.5, 7]", True),
        ("number", "[3]", False),
        ("number", "[007]", False),
        ("string", '["data", "bins", "data"]', True),
        ("string", "[" + ", ".join(['"data"'] * 8) + "]", True),
        ("string", "[" + ", ".join(['"data"'] * 9) + "]", False),
        ("boolean", "[true, false]", True),
    ],
)
def test_arrays_are_rows_of_what_was_said(items: str, value: str, fits: bool) -> None:
    from xgrammar.testing import _is_grammar_accept_string

    question = "Plot the data: 85, 90, 88 with bins of 2.5 and 7kg for 3x^2 by agent 007."
    rules = copied_string_rules(words_of([{"role": "user", "content": question}]))
    grammar = xgrammar.Grammar.from_ebnf(call_grammar([arrays(items)], calls="one", strings=rules))
    line = f'TOOL_CALL: {{"name": "ask", "arguments": {{"list": {value}}}}}'
    assert bool(_is_grammar_accept_string(grammar, line)) is fits


@pytest.mark.parametrize(
    ("value", "text", "whether"),
    [
        (1000, "It cost 1,000 dollars.", True),
        (5, "Of 5 and 1,000", True),
        (3, "The function 3x^2 + 2x", False),
        (2, "The function 3x^2 + 2x", False),
        (100, "100g of water", True),
        (-2, "from x = -2", True),
        (True, "1", False),
        ("vegan food", "food that vegans eat", True),
        ("avoid_tolls", "with toll roads avoided", True),
        ("age", "my agent", False),
        ("", "anything", False),
        (["a", "b"], "a and b", True),
        (["a", "c"], "a and b", False),
        (None, "none", False),
    ],
)
def test_what_was_said(value: object, text: str, whether: bool) -> None:
    assert said(value, words_of([{"role": "user", "content": text}])) is whether
