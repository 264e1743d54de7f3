"""vLLM inside this process: every use of vLLM's internal interfaces is in this one package.

vLLM's asynchronous front (``AsyncLLM``) insists on an engine core in a process of its own. On a CPU that
costs half a minute of start-up and a third of the speed, and a child process can be orphaned. Here the core
runs on a thread of this process instead (:mod:`~agent.engines.inprocess.core`), behind the client interface
that the front expects, so there is nothing to orphan: whatever ends this process ends the engine. Above the
front sits vLLM's own OpenAI serving layer, called without HTTP (:mod:`~agent.engines.inprocess.server`), for
its chat templates, tool parsers and reasoning parsers.

The internals that this rests on (vLLM 0.32) are named in ``tests/contracts/test_vllm_internals.py``, which
fails loudly when one of them moves.
"""

from __future__ import annotations

from agent.engines.inprocess.core import ThreadCoreClient
from agent.engines.inprocess.platform import engine_argument_names, version, with_platform_defaults
from agent.engines.inprocess.server import InProcessServer, LoadedModel

__all__ = [
    "InProcessServer",
    "LoadedModel",
    "ThreadCoreClient",
    "engine_argument_names",
    "version",
    "with_platform_defaults",
]
