"""What a worker of a Ray cluster cannot open."""

from __future__ import annotations

import pytest

from agent.batch.ray_runner import _Worker
from agent.errors import ConfigurationError

pytest.importorskip("ray", reason="needs Ray: pip install 'vllm-agent[ray]'")


async def test_it_is_said_when_the_worker_is_asked_and_does_not_end_it() -> None:
    worker = _Worker({"graph": "raect", "base_url": "http://127.0.0.1:9/v1"}, "b")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="did you mean 'react'"):
            await worker.ready()
