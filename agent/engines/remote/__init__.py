"""An engine behind an address; HTTP is spoken in this package and nowhere else."""

from __future__ import annotations

from agent.engines.remote.engine import RemoteEngine

__all__ = ["RemoteEngine"]
