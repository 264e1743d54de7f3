"""Where the tests of this folder keep conversations: on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new place for conversations."""
    if request.param == "sqlite":
        return str(tmp_path / "c.sqlite")
    url: str = request.getfixturevalue("postgres_url")
    return url
