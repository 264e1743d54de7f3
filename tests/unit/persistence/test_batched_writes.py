"""Async writes that are collected for one thread."""

from __future__ import annotations

import asyncio

import pytest

from agent.errors import DatabaseError
from agent.persistence.batches import Batches


async def test_a_write_that_comes_after_the_end_is_refused_and_so_is_every_other() -> None:
    batches = Batches(lambda work: work)
    batches.close()
    for _ in range(2):
        with pytest.raises(DatabaseError, match="closed while a write began"):
            await asyncio.wait_for(batches.write(lambda: lambda transaction: None), 60)
