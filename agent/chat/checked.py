"""Arguments of a call that are checked before an engine is asked for anything."""

from __future__ import annotations

import difflib
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.chat.opening import explain
from agent.errors import ConfigurationError


class CheckedArguments(BaseModel):
    """A frozen record of arguments; what is unknown, out of range or contradictory is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    other_names: ClassVar[dict[str, str]] = {}
    """Names that other software has for these arguments."""

    not_here: ClassVar[dict[str, str]] = {}
    """Arguments that belong elsewhere, with the place."""

    @classmethod
    def create(cls, what: str, **arguments: Any) -> Self:
        """Check ``arguments``.

        Args:
            what: Begins the message of an error, for example "VLLM cannot be built".
            arguments: By the names of the fields, or by :attr:`other_names`.

        Raises:
            ConfigurationError: One is unknown or out of range, or two contradict each other.
        """
        renamed: dict[str, Any] = {}
        for given, value in arguments.items():
            name = cls.other_names.get(given, given)
            if name in renamed and renamed[name] != value:
                msg = f"{what}: {name} is given twice, as {renamed[name]!r} and as {value!r} ({given})"
                raise ConfigurationError(msg)
            renamed[name] = value
        for name, value in renamed.items():
            if name not in cls.model_fields:
                msg = f"{what}: unknown argument {name!r} (value {value!r}); {cls._hint(name)}"
                raise ConfigurationError(msg)
        try:
            return cls(**renamed)
        except ValidationError as error:
            raise ConfigurationError(explain(error, what)) from error

    @classmethod
    def _hint(cls, name: str) -> str:
        if name in cls.not_here:
            return cls.not_here[name]
        close = difflib.get_close_matches(name, cls.model_fields, n=1, cutoff=0.5)
        return f"did you mean {close[0]}?" if close else f"known are {', '.join(cls.model_fields)}"
