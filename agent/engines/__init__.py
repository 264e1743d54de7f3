"""Engines: what runs a model. Imports neither vLLM nor torch, and an HTTP client only for a remote engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.engines.base import Engine, EngineInfo, PoolingEngine
from agent.engines.config import EngineConfig
from agent.engines.local import LocalEngine, open_engine, release_engine
from agent.engines.scripted import Reply, ScriptedEngine

if TYPE_CHECKING:
    from agent.engines.remote import RemoteEngine

__all__ = [
    "Engine",
    "EngineConfig",
    "EngineInfo",
    "LocalEngine",
    "PoolingEngine",
    "RemoteEngine",
    "Reply",
    "ScriptedEngine",
    "open_engine",
    "release_engine",
]


def __getattr__(name: str) -> Any:
    if name == "RemoteEngine":
        from agent.engines.remote import RemoteEngine

        return RemoteEngine
    msg = f"module 'agent.engines' has no attribute {name!r}"
    raise AttributeError(msg)
