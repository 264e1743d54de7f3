"""Which card a name means: one of the table, one of this machine, or any of a size."""

from __future__ import annotations

import difflib
import re

from agent.catalogue.cards import CARDS, Card
from agent.catalogue.hardware import this_machine
from agent.errors import ConfigurationError


def find_card(name: str) -> Card:
    """The card of that name.

    Args:
        name: A name of the table, in any case and with or without ``NVIDIA``, ``GeForce`` and spaces; or a
        size such as
            ``24GB`` or ``22.5 GiB`` for a card that is not in the table; or ``auto`` for this machine's
            first card, and ``cpu`` for its memory.

    Raises:
        ConfigurationError: There is no such card.
    """
    wanted = _plain(name)
    if wanted in ("auto", "cpu"):
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


def _plain(name: str) -> str:
    text = re.sub(r"nvidia|geforce|[\s\-_]", "", name.lower())
    return re.sub(r"laptop(gpu)?$", "", text)
