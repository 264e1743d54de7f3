"""Graphics cards: how much memory CUDA sees on them, and what they can do.

What is printed on a card is not what CUDA has: the driver keeps a part. Numbers marked as seen stood in
published vLLM logs (most of them in ``benchmarks/fit_reports.toml``); the others are the printed size less
the part that the driver keeps of cards of the same size.
"""

from __future__ import annotations

import difflib
import re
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


def find_card(name: str) -> Card:
    """The card of that name.

    Args:
        name: A name of the table, in any case and with or without ``NVIDIA``, ``GeForce`` and spaces; or a
        size such
            as ``24GB`` or ``22.5 GiB`` for a card that is not in the table; or ``auto`` for this machine's
            first card, and ``cpu`` for its memory.

    Raises:
        ConfigurationError: There is no such card.
    """
    wanted = _plain(name)
    if wanted in ("auto", "cpu"):
        from agent.catalogue.hardware import this_machine

        return this_machine(wanted)
    for card in CARDS:
        if (
            _plain(card.name) == wanted
            or _plain(card.name).removesuffix("16gb").removesuffix("12gb") == wanted
        ):
            return card
    if size := re.fullmatch(r"(\d+(?:\.\d+)?)(gib|gb|g)", wanted):
        # A printed gigabyte is a GiB; CUDA has about 3 % less. A GiB is what CUDA reports.
        number = float(size[1])
        total = number if size[2] == "gib" else round(number * 0.968, 2)
        return Card(f"a card of {name}", total, 80)
    names = {_plain(card.name): card.name for card in CARDS}
    close = [names[key] for key in difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    msg = (
        f"no card is called {name!r}: {hint}Give a name that `vllm-agent models cards` lists, a size such as "
        "24GB, or auto"
    )
    raise ConfigurationError(msg)


def with_free(card: Card, free_gib: float | None) -> Card:
    """The card with so much of it free."""
    return card if free_gib is None else replace(card, free_gib=free_gib)


def _plain(name: str) -> str:
    text = re.sub(r"nvidia|geforce|[\s\-_]", "", name.lower())
    return re.sub(r"laptop(gpu)?$", "", text)
