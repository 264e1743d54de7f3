"""What listens to a model stays, whatever is bound next."""

from __future__ import annotations

from typing import Any

from agent import ChatVLLM
from agent.engines import ScriptedEngine


def add(a: int) -> int:
    """Add one."""
    return a + 1


def test_listeners_hear_a_model_with_tools_and_one_with_structure() -> None:
    heard: list[Any] = []
    with ChatVLLM(engine=ScriptedEngine(["Hi", "Hi", '{"a": 1}'])) as model:
        listened = model.bind(max_tokens=9).with_config(tags=["t"])
        listened = listened.with_listeners(on_end=lambda run: heard.append(run.tags))
        listened.invoke("Hi")
        listened.bind_tools([add]).bind_tools([add]).invoke("Hi")
        assert listened.with_structured_output(dict[str, int]).invoke("Hi") == {"a": 1}
        requests = model.engine.requests  # type: ignore[union-attr]
    assert len(heard) == 3
    assert all("t" in tags for tags in heard)
    assert [request["max_tokens"] for request in requests] == [9, 9, 9]
    assert "tools" in requests[1]
