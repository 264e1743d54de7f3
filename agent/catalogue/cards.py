"""Graphics cards: how much memory CUDA sees on them, and what they can do.

What is printed on a card is not what CUDA has: the driver keeps a part. Numbers marked as seen stood in
published vLLM logs (most of them in ``benchmarks/fit_reports.toml``); the others are the printed size less
the part that the driver keeps of cards of the same size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from agent.errors import ConfigurationError

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of card, or one card of this machine."""

    name: str
    total_gib: float
    """Memory that CUDA reports, in GiB."""
    capability: int
    """Compute capability times ten; 0 for a CPU."""
    free_gib: float | None = None
    """Memory that is free now, where it was asked."""
    seen: bool = False
    """Whether ``total_gib`` was read from a card, or stood in a published log."""
    cpu: bool = False

    @property
    def total(self) -> int:
        """Memory in bytes."""
        return int(self.total_gib * GIB)


DEFAULT_CARD = "RTX 5080"
CARDS = (
    Card("RTX 5060", 7.5, 120),
    Card("RTX 5060 Ti 16GB", 15.45, 120, seen=True),
    Card("RTX 5070", 11.5, 120),
    Card("RTX 5070 Ti", 15.48, 120),
    Card("RTX 5080", 15.48, 120, seen=True),
    Card("RTX 5090", 31.36, 120, seen=True),
    Card("RTX PRO 6000", 94.97, 120, seen=True),
    Card("RTX 4060", 7.6, 89),
    Card("RTX 4060 Ti 16GB", 15.6, 89),
    Card("RTX 4070", 11.6, 89),
    Card("RTX 4080", 15.57, 89),
    Card("RTX 4090", 23.52, 89),
    Card("RTX 6000 Ada", 47.4, 89),
    Card("RTX 3060 12GB", 11.63, 86),
    Card("RTX 3080", 9.64, 86),
    Card("RTX 3090", 23.58, 86, seen=True),
    Card("RTX A6000", 47.4, 86),
    Card("RTX 2080 Ti", 10.75, 75),
    Card("T4", 14.56, 75),
    Card("V100 16GB", 15.77, 70),
    Card("V100 32GB", 31.73, 70),
    Card("A10G", 22.04, 86, seen=True),
    Card("L4", 22.04, 89, seen=True),
    Card("L40S", 44.42, 89, seen=True),
    Card("A100 40GB", 39.38, 80),
    Card("A100 80GB", 79.25, 80, seen=True),
    Card("H100", 79.22, 90, seen=True),
    Card("H200", 139.8, 90),
    Card("B200", 178.3, 100),
    Card("GB10", 121.69, 121, seen=True),
)


def with_free(card: Card, free_gib: float | None) -> Card:
    """The card with so much of it free.

    Raises:
        ConfigurationError: That is no amount of memory.
    """
    if free_gib is None:
        return card
    if not (isinstance(free_gib, int | float) and 0 <= free_gib < math.inf):
        raise ConfigurationError(f"free_gib is {free_gib!r}, and must be a number of at least 0")
    return replace(card, free_gib=free_gib)
