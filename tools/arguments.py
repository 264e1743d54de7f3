"""Are the arguments of a call what the tool asks for? If not, words from which a model can mend them.

Checked before the tool runs, and before a person is asked to approve: nobody should have to approve a call
that cannot work. Both forms of schema are covered, Pydantic models and plain JSON schema.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from langchain_core.tools import BaseTool, Tool
from langchain_core.utils.pydantic import model_json_schema
from pydantic import BaseModel, ValidationError

from tools.errors import ToolInputError

_SHOWN_VALUE = 80  # characters of a wrong value that are quoted back
_SHOWN_PROBLEMS = 8
_KNOWN_SCHEMAS = 256


def tool_schema(tool: BaseTool) -> dict[str, Any]:
    """The JSON schema of what a model may pass: injected arguments are not in it."""
    schema = tool.tool_call_schema
    return schema if isinstance(schema, dict) else model_json_schema(schema)


def check_arguments(tool: BaseTool, arguments: object) -> None:
    """Refuse arguments that do not fit the tool's schema.

    Raises:
        ToolInputError: Says which argument is wrong, what was given and what the tool takes.
    """
    if not isinstance(arguments, Mapping):
        raise input_error(tool, [f"the arguments must be one JSON object, not {_quote(arguments)}"])
    if isinstance(tool, Tool) and tool.args_schema is None:  # takes one text, whatever it is called
        if len(arguments) != 1:
            raise input_error(tool, [f"exactly one argument is taken, not {len(arguments)}"])
        return
    schema = tool.tool_call_schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        problems = _pydantic_problems(schema, arguments) + _unknown_arguments(tool, schema, arguments)
    else:
        problems = _json_schema_problems(tool_schema(tool), arguments)
    if problems:
        raise input_error(tool, problems)


def input_error(tool: BaseTool, problems: list[str]) -> ToolInputError:
    """The error that lists ``problems`` and what ``tool`` takes."""
    shown = problems[:_SHOWN_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    lines = "\n".join(f"- {problem}" for problem in shown)
    return ToolInputError(f"{tool.name} was not run, its arguments are wrong:\n{lines}\n{_signature(tool)}")


def validation_problems(error: ValidationError) -> list[str]:
    """One line per problem that Pydantic found."""
    return [_pydantic_line(cast("Mapping[str, Any]", detail)) for detail in error.errors(include_url=False)]


def closest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean X?"`` where something close is known, else an empty string."""
    names = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=0.6)
    return f" Did you mean {names[found[0]]}?" if found else ""


def without_foreign_patterns(schema: Any) -> Any:
    """A JSON schema without the patterns that only other languages read, such as ``\\p{L}`` of JavaScript.

    What is left allows more: what does not fit them, the tool itself will say.
    """
    if isinstance(schema, list):
        return [without_foreign_patterns(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: without_foreign_patterns(value) for key, value in schema.items()}
    if isinstance(found.get("pattern"), str) and not _is_pattern(found["pattern"]):
        del found["pattern"]
    if isinstance(of_names := found.get("patternProperties"), dict) and not all(map(_is_pattern, of_names)):
        found["patternProperties"] = {"^": True}
    return found


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):  # the second for a count of many digits
        return False
    return True


def _pydantic_problems(model: type[BaseModel], arguments: Mapping[str, Any]) -> list[str]:
    try:
        model.model_validate(dict(arguments))
    except ValidationError as error:
        return validation_problems(error)
    return []


def _unknown_arguments(tool: BaseTool, model: type[BaseModel], arguments: Mapping[str, Any]) -> list[str]:
    """Pydantic ignores what it does not know: a misspelt optional argument would be lost without a word."""
    config = getattr(tool.args_schema, "model_config", {})  # the schema for models is a copy without it
    if config.get("extra") == "allow":
        return []
    known = set(model.model_fields) | set(model.model_json_schema().get("properties", {}))
    if "kwargs" in known:  # LangChain's name for a function's **kwargs
        return []
    return [f"{name}: unknown argument.{closest(name, known)}" for name in arguments if name not in known]


def _pydantic_line(detail: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "arguments"
    if detail["type"] == "missing":
        return f"{where}: missing"
    message = str(detail["msg"]).removeprefix("Input ")
    return f"{where}: {message} (got {_quote(detail.get('input'))})"


def _json_schema_problems(schema: dict[str, Any], arguments: Mapping[str, Any]) -> list[str]:
    from jsonschema.exceptions import SchemaError, best_match
    from referencing.exceptions import Unresolvable

    try:
        found = sorted(_validator(schema).iter_errors(dict(arguments)), key=lambda error: error.json_path)
    except (SchemaError, Unresolvable) as error:
        return [f"the tool's own schema is broken ({str(error).splitlines()[0]}); this tool cannot be used"]
    problems = []
    for problem in found:
        deepest = best_match([problem]) or problem
        where = ".".join(str(part) for part in deepest.absolute_path) or "arguments"
        problems.append(f"{where}: {_shorten(deepest.message, 300)}")
    return problems


def _validator(schema: dict[str, Any]) -> Any:
    """What checks arguments, kept for the next call: making it costs far more than using it."""
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError, RecursionError):  # written in Python, with what JSON does not know
        return _new_validator(schema)
    return _known_validator(text)


@functools.lru_cache(maxsize=_KNOWN_SCHEMAS)
def _known_validator(text: str) -> Any:
    return _new_validator(json.loads(text))


def _new_validator(schema: dict[str, Any]) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing import Registry

    kind, schema = validator_for(schema, default=Draft202012Validator), without_foreign_patterns(schema)
    kind.check_schema(schema)
    # An empty registry: a "$ref" in a foreign schema must not make us fetch an address.
    return kind(schema, registry=Registry())


def _signature(tool: BaseTool) -> str:
    """What the tool takes, in one line: ``clock takes: timezone (string, default "UTC")``."""
    schema = tool_schema(tool)
    required = schema.get("required", [])
    parts = []
    for name, field in schema.get("properties", {}).items():
        notes = [_type_name(field)]
        if "default" in field:
            notes.append(f"default {_quote(field['default'])}")
        elif name not in required:
            notes.append("optional")
        parts.append(f"{name} ({', '.join(notes)})")
    return f"{tool.name} takes: {', '.join(parts)}" if parts else f"{tool.name} takes no arguments"


def _type_name(field: Any) -> str:
    if not isinstance(field, Mapping):  # JSON schema allows true and false in the place of a schema
        return "any"
    if "enum" in field:
        return "one of " + ", ".join(_quote(value) for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type_name(option) for option in field["anyOf"])
    kind = field.get("type", "object" if "$ref" in field else "any")
    return " or ".join(map(str, kind)) if isinstance(kind, list) else str(kind)


def _quote(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return _shorten(text, _SHOWN_VALUE)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
