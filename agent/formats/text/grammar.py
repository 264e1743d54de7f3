"""The grammar under which calls are decoded: JSON schema to EBNF.

A call that is decoded under it is always well formed and always names a bound tool. The grammar is written
by us, and not left to the engine's own JSON-schema support, for two reasons: white space is as models write
it (``", "`` and ``": "``; small models stumble over compact JSON), and schemas that the engine's compiler
refuses are widened in the place of failing. What the grammar does not hold (lengths, patterns, ranges,
formats) is checked when the call is executed.

The notation is that of xgrammar (https://xgrammar.mlc.ai/docs/), which is llama.cpp's GBNF. Bounded
repetition (``char{0,200}``) is avoided on purpose: xgrammar 0.2.8 takes 0.8 s a token to follow it, and
0.01 ms to follow ``char*``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from agent.formats.text.reader import MARKER

_MOST_ITEMS = 8  # of an array, where texts are copied: a small model writes on and on

_BASE_RULES = {
    "char": r'[^"\\\x00-\x1f] | "\\" ["\\/bfnrt]',
    "string": r'"\"" char* "\""',
    "key": r'"\"" char char* "\""',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,14})',
    "number": 'integer ("." [0-9]{1,12})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "any": "string | number | boolean | null | any_array | any_object",
    "any_array": '"[" (any (", " any)*)? "]"',
    "any_object": '"{" (key ": " any (", " key ": " any)*)? "}"',
}


def call_grammar(
    tools: Sequence[Mapping[str, Any]],
    *,
    calls: Literal["each", "one", "any"],
    strings: Mapping[str, str] | None = None,
) -> str:
    """Return the grammar of call lines.

    Args:
        tools: The tools that may be called, in wire form.
        calls: ``"each"``: every tool once, in this order; ``"one"``: one call of one of them; ``"any"``: one
            call or more.
        strings: Rules in the place of those for texts of any kind; see
            :func:`agent.formats.text.copying.copied_string_rules`.
    """
    writer = _Writer(strings or {})
    lines = []
    for tool in tools:
        function = tool["function"]
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        head = f'{MARKER} {{"name": {json.dumps(function["name"])}, "arguments": '
        lines.append(writer.rule(f'{_literal(head)} {writer.arguments(schema)} "}}"', "call"))
    if calls == "each":
        return writer.text(' "\\n" '.join(lines))
    line = writer.rule(" | ".join(lines), "line")
    return writer.text(f'{line} ("\\n" {line})*' if calls == "any" else line)


def takes_text(grammar: str) -> bool:
    """Whether calls under this grammar have texts, or rows of values, that the schemas do not prescribe."""
    rules = (line.partition(" ::= ") for line in grammar.splitlines())
    return any(
        re.search(r"\b(string|any|key|array_\d+)\b", re.sub(r'"(?:[^"\\]|\\.)*"', "", body))
        for name, _, body in rules
        if name not in _BASE_RULES
    )


def value_grammar(schema: Mapping[str, Any]) -> str:
    """Return the grammar of one JSON value that fits ``schema``, as far as a grammar can say so."""
    writer = _Writer({})
    return writer.text(writer.document(schema))


def _literal(text: str) -> str:
    """Quote ``text`` for the grammar."""
    return json.dumps(text, ensure_ascii=False)


class _Writer:
    """Collects the rules of one grammar."""

    def __init__(self, strings: Mapping[str, str]) -> None:
        self._rules: dict[str, str] = {**_BASE_RULES, **strings}
        self._copying = bool(strings)
        self._references: dict[str, str] = {}
        self._root: Mapping[str, Any] = {}

    def text(self, root: str) -> str:
        return "\n".join([f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self._rules.items())])

    def rule(self, body: str, hint: str) -> str:
        name = f"{hint}_{len(self._rules)}"
        self._rules[name] = body
        return name

    def arguments(self, schema: Mapping[str, Any]) -> str:
        """Return the expression for the arguments of one tool; its ``$ref`` are resolved in ``schema``."""
        self._root, self._references = schema, {}
        takes_nothing = {"properties": {}}.items() <= {"properties": {}, **schema}.items() and not any(
            key in schema for key in ("$ref", "allOf", "anyOf", "oneOf", "additionalProperties")
        )
        return '"{}"' if takes_nothing else self._value({"type": "object", **schema})

    def document(self, schema: Mapping[str, Any]) -> str:
        """Return the expression for any value; its ``$ref`` are resolved in ``schema``."""
        self._root, self._references = schema, {}
        return self._value(schema)

    def _value(self, schema: Any) -> str:
        if not isinstance(schema, Mapping):
            return "any"
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        if "const" in schema:
            return _literal(_dump(schema["const"]))
        if "enum" in schema:
            return self._choice(_literal(_dump(value)) for value in schema["enum"])
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self._choice(self._value(member) for member in schema[union])
        if "allOf" in schema:
            return self._all_of(schema)
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._choice(self._value({**schema, "type": one}) for one in kind)
        if kind == "object" or "properties" in schema:
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        return kind if kind in ("string", "integer", "number", "boolean", "null") else "any"

    @staticmethod
    def _choice(members: Any) -> str:
        return "(" + " | ".join(dict.fromkeys(members)) + ")"

    def _all_of(self, schema: Mapping[str, Any]) -> str:
        members = [member for member in schema["allOf"] if isinstance(member, Mapping)]
        if len(members) == 1 and "properties" not in schema:
            return self._value(_merged({**schema, "allOf": members}))
        whole = _dump(schema)
        if whole not in self._references:  # the name first, as for a reference
            self._references[whole] = name = self.rule("any", "all")
            self._rules[name] = self._value(self._united(schema))
        return self._references[whole]

    def _united(self, schema: Mapping[str, Any], seen: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return ``allOf`` as one schema, with what its members refer to."""
        members = []
        for each in schema["allOf"]:
            if not isinstance(each, Mapping):  # true, which asks for nothing
                continue
            member, known = each, seen
            while (pointer := member.get("$ref")) is not None and pointer not in known:
                target = self._target(pointer)
                if not isinstance(target, Mapping):
                    break
                known = (*known, pointer)
                member = {**target, **{key: value for key, value in member.items() if key != "$ref"}}
            members.append(self._united(member, known) if "allOf" in member else member)
        return _merged({**schema, "allOf": members})

    def _target(self, pointer: str) -> Any:
        """Return what a reference stands for; None where it leads out of this schema."""
        target: Any = self._root
        for part in pointer.removeprefix("#").strip("/").split("/"):
            target = target.get(part) if isinstance(target, Mapping) and part else target
        return None if target is self._root else target

    def _reference(self, pointer: str) -> str:
        if pointer not in self._references:
            target = self._target(pointer)
            if target is None:
                return "any"  # a reference out of this schema: any JSON value, checked on execution
            name = self.rule("any", "ref")  # the name first: a schema may refer to itself
            self._references[pointer] = name
            self._rules[name] = self._value(target)
        return self._references[pointer]

    def _array(self, schema: Mapping[str, Any]) -> str:
        if "prefixItems" in schema:
            items = ' ", " '.join(self._value(item) for item in schema["prefixItems"])
            return f'("[" {items} "]")' if items else '"[]"'
        item = self._value(schema.get("items"))
        body = self._items(item)
        return self.rule(f'"[" {body} "]"' if schema.get("minItems") else f'"[" ({body})? "]"', "array")

    def _items(self, item: str) -> str:
        if not self._copying:
            return f'{item} (", " {item})*'
        if (row := f"{item}s") in self._rules:
            return row
        body = item
        for _ in range(_MOST_ITEMS - 1):  # not {0,n}, which is slow
            body = f'{item} (", " {self.rule(body, "items")})?'
        return body

    def _object(self, schema: Mapping[str, Any]) -> str:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        if not properties:
            extra = schema.get("additionalProperties")
            value = self._value(extra) if isinstance(extra, Mapping) else "any"
            return self.rule(f'"{{" (key ": " {value} (", " key ": " {value})*)? "}}"', "map")
        required = schema.get("required") or ()
        members = [
            (f"{_literal(f'{json.dumps(name)}: ')} {self._value(value)}", name in required)
            for name, value in properties.items()
        ]
        return self.rule(f'"{{" {self._members(members)} "}}"', "object")

    def _members(self, members: Sequence[tuple[str, bool]]) -> str:
        """Members in the schema's order; those that are not required may be left out."""
        tail = ""
        starts: list[str] = []
        for member, required in reversed(members):
            starts.insert(0, f"{member} {tail}".strip())
            if required:
                starts = starts[:1]  # nothing after a required member can be the first
            link = f'", " {member}' if required else f'(", " {member})?'
            tail = self.rule(f"{link} {tail}".strip(), "rest")
        if not any(required for _, required in members):
            starts.append('""')
        return self._choice(starts)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _merged(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``allOf``: properties and required names are united, values cut; else later members win."""
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for member in schema["allOf"]:
        for key, value in member.items():
            if key == "properties":
                known = merged.get(key) or {}
                added = {name: _both(known.get(name), one) for name, one in (value or {}).items()}
                merged[key] = {**known, **added}
            elif key == "required":
                merged[key] = [*(merged.get(key) or ()), *(value or ())]
            elif key == "enum" and value and merged.get(key):  # no grammar says that nothing fits
                merged[key] = [one for one in value if one in merged[key]] or value
            else:
                merged[key] = value
    return merged


def _both(one: Any, other: Any) -> Any:
    """Return the schema of what fits two, without repetitions: what refers to itself comes to an end."""
    members: list[Any] = []
    for each in (one, other):
        parts = each["allOf"] if isinstance(each, Mapping) and each.keys() == {"allOf"} else [each]
        members += [part for part in parts if isinstance(part, Mapping) and part not in members]
    if not members:
        return other
    return members[0] if len(members) == 1 else {"allOf": members}
