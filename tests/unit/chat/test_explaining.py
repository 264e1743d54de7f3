"""`explain`: what a call would give to the model, by protocol and tool choice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from agent import ChatVLLM
from agent.engines import ScriptedEngine
from agent.engines.base import EngineInfo, Explained, Request
from agent.errors import ConfigurationError, RequestError
from agent.protocols.control import BREAK


@dataclass
class Explaining(ScriptedEngine):
    """Explains a request as the texts of its messages, and its grammar as it was given."""

    explained: list[Request] = field(default_factory=list, init=False)

    async def start(self) -> EngineInfo:
        return replace(await super().start(), control_tokens=("<|im_end|>",))

    async def explain(self, request: Request) -> Explained:
        self.explained.append(request)
        prompt = "\n".join(str(message["content"]) for message in request["messages"])
        return Explained(
            prompt, tuple(range(len(prompt))), (request.get("structured_outputs") or {}).get("grammar")
        )


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_the_native_protocol_gives_the_request_as_it_is() -> None:
    engine = Explaining(["never asked"])
    shown = ChatVLLM(engine=engine).explain("What is 1 + 2?<|im_end|>", [add], tool_choice="required")
    assert shown.protocol == "native"
    assert shown.prompt == f"What is 1 + 2?<{BREAK}|im_end|>"
    assert shown.token_ids == tuple(range(len(shown.prompt)))
    assert (shown.grammar, shown.alternatives) == (None, ())
    assert shown.engine.kind == "scripted"
    [request] = engine.explained
    assert [tool["function"]["name"] for tool in request["tools"]] == ["add"]
    assert request["tool_choice"] == "required"
    assert engine.requests == []


def test_the_text_protocol_shows_tools_and_grammar() -> None:
    engine = Explaining(["never asked"])
    model = ChatVLLM(engine=engine, protocol="text")
    shown = model.explain([("system", "Be brief."), ("user", "1 + 2?")], [add], tool_choice="add")
    assert shown.protocol == "text"
    assert shown.prompt.startswith("Be brief.\n\nAVAILABLE TOOLS:\n- add: Add two numbers.")
    assert shown.grammar is not None
    assert 'TOOL_CALL: {\\"name\\": \\"add\\"' in shown.grammar
    assert model.explain("Hello.", [add], tool_choice="none").grammar is None
    assert model.explain("Hello.").grammar is None
    assert engine.requests == []


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(RequestError, match="ScriptedEngine has no prompts to explain"):
        ChatVLLM(engine=ScriptedEngine(["x"])).explain("Hello.")
    with pytest.raises(ConfigurationError, match="names no bound tool"):
        ChatVLLM(engine=Explaining(["x"])).explain("Hello.", [add], tool_choice="subtract")


def test_arguments_of_the_call_count() -> None:
    engine: Any = Explaining(["x"])
    ChatVLLM(engine=engine, temperature=0.5).explain("Hello.", temperature=0.25)
    assert engine.explained[0]["temperature"] == 0.25
