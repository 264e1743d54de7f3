"""Is this JSON a call? It is if it names a bound tool, and can be executed if it fits that tool's schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NoReturn

from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry

from agent.chat.candidates import FoundCall
from agent.chat.patterns import readable
from agent.formats.json_text import too_deep

_KEYS = {"name", "arguments", "parameters", "id", "type", "function", "index"}
_NAME = re.compile(r'"(?:name|function)"\s*:\s*"((?:[^"\\]|\\.)*)"')
_LONGEST = 200  # characters of a schema's complaint


class KnownTools:
    """The bound tools, with their schemas.

    Args:
        tools: In wire form.
    """

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self._schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}

    def read(self, text: str, *, meant: bool) -> list[FoundCall] | None:
        """Return the calls in one piece of JSON.

        Args:
            text: An object, or an array of them; it may be broken.
            meant: Whether a model's mark stands before it, so that it cannot be anything but a call.

        Returns:
            None where it is something else than calls of bound tools.
        """
        try:
            value = json.loads(text, strict=False, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return self._broken(text, str(error), meant=meant)
        values = value if isinstance(value, list) else [value]
        found: list[FoundCall] = []
        for one in values:
            calls = self._calls(one, meant=meant)
            if calls is None:
                return None
            found += calls
        return found

    def _calls(self, value: Any, *, meant: bool) -> list[FoundCall] | None:
        if not isinstance(value, dict):
            return None
        if value.keys() == {"tool_calls"} and isinstance(value["tool_calls"], list):
            inner = [self._calls(one, meant=True) for one in value["tool_calls"]]
            calls = [call for one in inner if one is not None for call in one]
            return calls if calls and None not in inner else None
        if isinstance(value.get("function"), dict):
            return self._calls(value["function"], meant=meant)
        name = value.get("name", value.get("function"))
        if not isinstance(name, str) or name not in self._schemas or not value.keys() <= _KEYS:
            return None
        given = [key for key in ("arguments", "parameters") if key in value]
        if not given and not meant:
            return None  # a thing that happens to have a tool's name
        return [self._call(name, value[given[0]] if given else {})]

    def _call(self, name: str, arguments: Any) -> FoundCall:
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}", strict=False, parse_constant=_refuse)
            except (ValueError, RecursionError) as error:
                return FoundCall(name, arguments, f"arguments are no valid JSON ({error})")
        text = json.dumps(arguments, ensure_ascii=False)
        if not isinstance(arguments, dict):
            return FoundCall(name, text, f"arguments must be a JSON object, got {text[:_LONGEST]}")
        if too_deep(text):
            return FoundCall(name, text, "arguments are nested too deeply")
        return FoundCall(name, text, complaint(arguments, self._schemas[name]))

    def _broken(self, text: str, problem: str, *, meant: bool) -> list[FoundCall] | None:
        """Judge JSON that is cut off or malformed: it is a call if it says whose."""
        name = _NAME.search(text)
        if name is None:
            return [FoundCall(None, text, f"this call is no valid JSON ({problem})")] if meant else None
        if name[1] not in self._schemas:
            return None
        return [FoundCall(name[1], text, f"this call is no valid JSON ({problem})")]


def complaint(value: Any, schema: Any) -> str:
    """Say in one line how ``value`` breaks ``schema``; an empty text where it fits.

    A schema that is itself wrong, or that refers to something far away, forbids nothing; nor does a pattern
    that only other languages read.
    """
    try:
        # An empty registry: jsonschema's own fetches what a reference names, from files and the network.
        validator: Validator = _checker(validator_for(schema))(schema, registry=Registry())
        problem = next(iter(validator.iter_errors(value)), None)
    except RecursionError:
        return "it is nested too deeply to be checked"
    except Exception:  # whatever jsonschema and its registry raise over a schema that is no schema
        return ""
    if problem is None:
        return ""
    place = ".".join(str(part) for part in problem.absolute_path)
    return f"{place}: {problem.message}"[:_LONGEST] if place else problem.message[:_LONGEST]


@cache
def _checker(kind: Any) -> Any:
    of_kind = kind.VALIDATORS["pattern"]

    def pattern(validator: Any, pattern: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        if readable(pattern):
            yield from of_kind(validator, pattern, value, schema) or ()

    return extend(kind, {"pattern": pattern})  # type: ignore[no-untyped-call]  # jsonschema's stubs


def schema_problem(schema: Any) -> str:
    """Say in one line why a JSON schema is none; an empty text where it is one."""
    kind: Any = validator_for(schema)
    try:
        kind.check_schema(schema, format_checker=None)  # of formats, as patterns may be of other languages
    except SchemaError as error:
        place = ".".join(str(part) for part in error.absolute_path)
        return f"{place or 'schema'}: {error.message}"[:_LONGEST]
    return ""


def _refuse(constant: str) -> NoReturn:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)
