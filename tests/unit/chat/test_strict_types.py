"""Structured answers as objects of strict types, which take from JSON what it can write."""

from __future__ import annotations

from datetime import date
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from pydantic.dataclasses import dataclass

from agent import ChatVLLM
from agent.engines import ScriptedEngine
from agent.errors import StructuredOutputError


class Kind(Enum):
    CAT = "cat"


class Animal(BaseModel):
    model_config = ConfigDict(strict=True)

    kind: Kind
    born: date
    place: tuple[int, int]


@dataclass(config=ConfigDict(strict=True))
class Birth:
    born: date
    names: set[str]


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        (
            Animal,
            '{"kind": "cat", "born": "2020-01-02", "place": [1, 2]}',
            Animal(kind=Kind.CAT, born=date(2020, 1, 2), place=(1, 2)),
        ),
        (Birth, '{"born": "2020-01-02", "names": ["Luna"]}', Birth(date(2020, 1, 2), {"Luna"})),
    ],
    ids=["model", "dataclass"],
)
@pytest.mark.parametrize("options", [{}, {"method": "json_mode"}], ids=["schema", "any"])
def test_what_fits_is_read(kind: Any, answer: str, expected: Any, options: dict[str, Any]) -> None:
    with ChatVLLM(engine=ScriptedEngine([answer])) as model:
        assert model.with_structured_output(kind, **options).invoke("An animal?") == expected


def test_what_is_nested_too_deeply_is_an_error_of_ours() -> None:
    deep = f'{{"a": {"[" * 900}{"]" * 900}}}'
    with ChatVLLM(engine=ScriptedEngine([deep])) as model, pytest.raises(StructuredOutputError):
        model.with_structured_output(dict[str, Any]).invoke("Something deep?")
