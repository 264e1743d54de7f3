"""Fixtures that are shared by all tests; a real engine is started once and shared."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import postgres_server
import pytest
import setuptools as _  # noqa: F401  (before anything imports the standard library's distutils, which it replaces)
from hypothesis import HealthCheck, settings
from postgres_server import PostgresServer
from vllm_server import VLLMServer, serve

from agent import ChatVLLM
from agent.catalogue.embedded import embedded_model

# What a script runs in its background ignores Ctrl-C, and so would processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example or its making takes says nothing on a machine that others use too. What decides whether
# a change may land looks at the same examples each time; new ones are looked for at the desk.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("patient")

# One thread per engine: on few cores, with another engine beside it, more of them wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No command of a test leaves a server running, but those whose subject it is.
os.environ["VLLM_AGENT_WARM_MINUTES"] = "0"


@pytest.fixture(scope="session")
def real_model() -> Iterator[ChatVLLM]:
    """The embedded model on real vLLM, greedy, the way `ChatVLLM()` gives it to users."""
    with ChatVLLM(temperature=0.0, max_tokens=64) as model:
        model.start()
        yield model


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """The embedded model behind a real `vllm serve` on loopback."""
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with serve(embedded_model(), log, "--enable-tokenizer-info-endpoint") as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL on loopback; CI has to have one."""
    if postgres_server.programs() is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(postgres_server.MISSING)
    with postgres_server.serve() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The address of a new empty database."""
    return postgres.new_database()
