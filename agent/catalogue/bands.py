"""A number that is known within limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Band:
    """A low, a middle and a high value; where the truth is known, all three are the same."""

    low: float
    mid: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Band:
        """A number that is known."""
        return cls(value, value, value)

    def to_dict(self) -> dict[str, float]:
        """As plain data."""
        return {"low": self.low, "mid": self.mid, "high": self.high}

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies within."""
        return self.low <= value <= self.high
