"""From a Python type or a JSON schema to what an engine can hold an answer to.

For vLLM, schemas become grammars of our own wherever those say as much: they allow white space as models
write it and nowhere else, while under the engine's own support for JSON schema a small model may write line
breaks until its tokens are used up. Strings with a pattern, a length or a format, and numbers within wide
limits, are left to the engine. What no grammar holds is left out, and checked when the answer is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, TypeAdapter
from typing_extensions import is_typeddict

from agent.chat.patterns import held
from agent.errors import ConfigurationError
from agent.formats.text.grammar import value_grammar

_MOST_VALUES = 64  # of a range that is spelt out
_MOST_ITEMS = 8  # of an array whose length is prescribed
_HELD = (
    *("type", "properties", "required", "additionalProperties", "items", "prefixItems", "enum", "const"),
    *("anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions", "minItems", "maxItems"),
    *(
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "pattern",
        "minLength",
        "maxLength",
        "format",
    ),
)
"""Keywords that a grammar can hold, ours or the engine's."""

_ENGINES_OWN = ("pattern", "minLength", "maxLength", "format")
_RANGE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_FORMATS = ("date", "date-time", "time", "duration", "email", "uuid", "ipv4", "ipv6", "hostname", "uri")


def wire_schema(schema: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the JSON schema of what ``with_structured_output`` is given.

    Raises:
        ConfigurationError: It is neither a type that Pydantic knows nor a JSON schema.
    """
    try:
        if isinstance(schema, Mapping):
            found = _of_mapping(dict(schema))
        elif isinstance(schema, type) and issubclass(schema, BaseModel):
            found = schema.model_json_schema()
        elif is_typeddict(schema) or (isinstance(schema, type) and is_basemodel_subclass(schema)):
            found = convert_to_json_schema(schema)
        else:
            found = TypeAdapter(schema).json_schema()
    except Exception as error:  # Pydantic and LangChain raise many kinds over what is no schema
        msg = f"the answer cannot be structured by {schema!r}: it is no type and no JSON schema ({error})"
        raise ConfigurationError(msg) from error
    name = found.get("title") or getattr(schema, "__name__", None) or "answer"
    return "".join(letter if letter.isalnum() else "_" for letter in str(name))[:64], found


def _of_mapping(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(inner := schema.get("json_schema"), Mapping):  # a whole response_format
        schema = dict(inner)
    if isinstance(inner := schema.get("schema"), Mapping) and "properties" not in schema:
        return {"title": schema.get("name", "answer"), **inner}
    if schema.get("type") == "function" or "parameters" in schema or "input_schema" in schema:
        return convert_to_json_schema(schema)
    return schema


def for_vllm(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the schemas of a request as vLLM holds them best; other requests stay as they are."""
    request = _with_held_tools(request)
    form = request.get("response_format") or {}
    if request.get("structured_outputs") is not None:
        return dict(request)
    if form.get("type") == "json_object":
        schema: Any = {"type": "object"}
    elif form.get("type") == "json_schema" and isinstance(form.get("json_schema"), Mapping):
        schema = down_levelled(form["json_schema"].get("schema") or {})
    else:
        return dict(request)
    if any(key in one for one in _subschemas(schema) for key in (*_ENGINES_OWN, *_RANGE)):
        return {
            **request,
            "response_format": {**form, "json_schema": {**form["json_schema"], "schema": schema}},
        }
    others = {name: value for name, value in request.items() if name != "response_format"}
    return {**others, "structured_outputs": {"grammar": value_grammar(schema)}}


def _with_held_tools(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave patterns that no grammar holds out of tools whose calls an engine holds to their schemas.

    Where it does not, the model is told of them all: they are then words in its prompt, and nothing else.
    """
    tools, forced = request.get("tools") or (), request.get("tool_choice") not in (None, "auto", "none")
    if not any(forced or tool["function"].get("strict") for tool in tools):
        return request
    fitted = [{**tool, "function": _with_held_patterns(tool["function"])} for tool in tools]
    return {**request, "tools": fitted}


def _with_held_patterns(part: Any) -> Any:
    if isinstance(part, list):
        return [_with_held_patterns(one) for one in part]
    if not isinstance(part, Mapping):
        return part
    data = ("enum", "const", "default", "examples")
    kept = {key: value if key in data else _with_held_patterns(value) for key, value in part.items()}
    if isinstance(kept.get("pattern"), str) and not held(kept["pattern"]):
        del kept["pattern"]
    if isinstance(names := kept.get("patternProperties"), Mapping) and not all(map(held, names)):
        del kept["patternProperties"]
        kept.pop("additionalProperties", None)  # it would forbid what they allow
    return kept


def down_levelled(schema: Any) -> Any:
    """Leave out of a schema what grammars do not hold; what is left allows more, and never less."""
    if not isinstance(schema, Mapping):
        return {}
    kept = {key: value for key, value in schema.items() if key in _HELD}
    for key in ("properties", "$defs", "definitions"):
        if isinstance(kept.get(key), Mapping):
            kept[key] = {name: down_levelled(value) for name, value in kept[key].items()}
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if isinstance(kept.get(key), list):
            kept[key] = [down_levelled(value) for value in kept[key]]
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), Mapping):
            kept[key] = down_levelled(kept[key])
    if "oneOf" in kept:  # that only one fits is checked afterwards
        kept["anyOf"] = [*kept.get("anyOf", ()), *kept.pop("oneOf")]
    if not kept.get("enum", True):
        return {}  # nothing fits, which no grammar can say
    return _lengths(_numbers(_strings(kept)))


def _strings(schema: dict[str, Any]) -> dict[str, Any]:
    if "format" in schema and schema["format"] not in _FORMATS:
        schema.pop("format")
    if "pattern" in schema and not held(schema["pattern"]):
        schema.pop("pattern")
    return schema


def _numbers(schema: dict[str, Any]) -> dict[str, Any]:
    """Spell a small range of integers out."""
    if schema.get("type") != "integer" or "enum" in schema or "const" in schema:
        return schema
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and isinstance(schema.get("exclusiveMinimum"), int):
        low = schema["exclusiveMinimum"] + 1
    if high is None and isinstance(schema.get("exclusiveMaximum"), int):
        high = schema["exclusiveMaximum"] - 1
    if not isinstance(low, int) or not isinstance(high, int) or not 0 <= high - low < _MOST_VALUES:
        return schema
    return {"enum": list(range(low, high + 1))}


def _lengths(schema: dict[str, Any]) -> dict[str, Any]:
    """Spell a short array out, whose length is prescribed."""
    least, most = schema.pop("minItems", 0), schema.pop("maxItems", None)
    if schema.get("type") != "array" or "prefixItems" in schema:
        return schema
    item = schema.get("items", {})
    if isinstance(most, int) and most <= _MOST_ITEMS and least <= most:
        return {
            "anyOf": [{"type": "array", "prefixItems": [item] * length} for length in range(least, most + 1)]
        }
    return {**schema, "minItems": 1} if least else schema


def _subschemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(schema, Mapping):
        yield schema
        for key, value in schema.items():
            if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
                for one in value.values():
                    yield from _subschemas(one)
            elif key not in ("enum", "const"):
                yield from _subschemas(value)
    elif isinstance(schema, list):
        for one in schema:
            yield from _subschemas(one)
