"""The record that every check gives."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "problem", "not used"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    """``part.thing``, for example ``versions.torch``."""

    verdict: Verdict
    """``problem``: something does not work; ``warning``: it works, or will, with a loss; ``not used``: it is
    not there, and nothing here needs it now."""

    what: str
    """What was found, in a line."""

    mend: str | None = None
    """The command that mends it, or what to do where no command can."""

    @property
    def part(self) -> str:
        """What it belongs to, for example ``versions``."""
        return self.name.partition(".")[0]

    def to_dict(self) -> Mapping[str, str | None]:
        """The fields, for JSON."""
        return asdict(self)


def pip(*arguments: str) -> str:
    """A command of the pip that belongs to this Python."""
    return shlex.join([sys.executable, "-m", "pip", *arguments])


def command(*arguments: str) -> str:
    """A command of ours, as it is called with this Python."""
    return shlex.join(["vllm-agent", *arguments])
