"""Models that decide by themselves: which ones they are, and what they are held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent import ChatVLLM
from agent.catalogue.size import parameters_of
from agent.engines import ScriptedEngine
from agent.engines.base import EngineInfo
from agent.formats.text.engine import TextToolEngine
from agent.formats.text.unaided import SMALL, needs_help

SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string"},
                "include_images": {"type": "boolean"},
                "most": {"type": "integer"},
            },
            "required": ["query"],
        },
    },
}
NOW = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
QUESTION = "Find pictures of cats and of dogs, images of 2 each."
CALL = 'TOOL_CALL: {"name": "search", "arguments": {"query": "cats"}}'


class Sized(ScriptedEngine):
    """A scripted engine whose model has so many parameters, and no tool format of its own."""

    def __init__(self, script: list[str], parameters: int | None) -> None:
        super().__init__(script)
        self.parameters = parameters

    async def start(self) -> EngineInfo:
        return EngineInfo(kind="scripted", model="sized", parameters=self.parameters)


def request(choice: Any = "auto", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"messages": messages, "tools": [SEARCH, NOW], "tool_choice": choice, **more}


async def sent(choice: Any = "auto", **more: Any) -> dict[str, Any]:
    """The one request that a model is given which decides by itself."""
    inner = ScriptedEngine([CALL])
    await TextToolEngine(inner, helped=False).chat(request(choice, **more))
    [only] = inner.requests
    assert "tools" not in only
    return only


def rules(grammar: str) -> str:
    return grammar.splitlines()[0]


async def test_it_decides_whether_to_call_while_it_writes() -> None:
    only = await sent()
    held = json.loads(only["structured_outputs"]["structural_tag"])["format"]
    assert held["triggers"] == ["TOOL_CALL:"]
    assert "stop_after_first" not in held
    grammar = held["tags"][0]["content"]["grammar"]
    assert "search" in grammar
    assert "now" in grammar
    assert "const" not in grammar
    assert [message["role"] for message in only["messages"]] == ["system", "user"]  # it needs no examples


async def test_it_says_how_often_and_with_which_options() -> None:
    grammar = (await sent("required"))["structured_outputs"]["grammar"]
    assert ")*" in rules(grammar)
    assert "include_images" in grammar
    assert "said_" not in grammar
    assert ")*" not in rules(
        (await sent("required", parallel_tool_calls=False))["structured_outputs"]["grammar"]
    )
    one = await sent(parallel_tool_calls=False)
    assert json.loads(one["structured_outputs"]["structural_tag"])["format"]["stop_after_first"] is True
    named = await sent({"type": "function", "function": {"name": "now"}})
    assert "search" not in named["structured_outputs"]["grammar"]


async def test_its_text_and_calls_are_read() -> None:
    inner = ScriptedEngine([f"I look for both.\n{CALL}\n{CALL.replace('cats', 'dogs')}"])
    [choice] = (await TextToolEngine(inner, helped=False).chat(request()))["choices"]
    assert choice["message"]["content"] == "I look for both."
    queries = [json.loads(call["function"]["arguments"])["query"] for call in choice["message"]["tool_calls"]]
    assert queries == ["cats", "dogs"]


async def test_none_never_calls() -> None:
    only = await sent("none")
    assert "structured_outputs" not in only
    assert "AVAILABLE TOOLS" not in str(only["messages"])


@pytest.mark.parametrize(
    ("parameters", "helped"), [(None, True), (135_000_000, True), (SMALL - 1, True), (SMALL, False)]
)
def test_the_size_of_the_model_decides(parameters: int | None, helped: bool) -> None:
    assert needs_help(parameters) is helped
    engine = Sized([CALL] * 4, parameters)
    with ChatVLLM(engine=engine, temperature=0) as model:
        message = model.bind_tools([SEARCH], tool_choice="required").invoke(QUESTION)
    assert message.tool_calls[0]["args"] == {"query": "cats"}
    assert (len(engine.requests) > 1) is helped
    switched_on = '\\"include_images\\": " "true"' in str(
        engine.requests[-1]["structured_outputs"]["grammar"]
    )
    assert switched_on is helped


# -- size ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "size"),
    [
        (["microsoft/phi-2"], 2_779_683_840),
        (["/models/phi-2/", "served"], 2_779_683_840),
        (["/srv/llm/My-Model-7B-Chat", "chat"], 7_000_000_000),
        ([None, "mixtral-8x7b"], 56_000_000_000),
        (["tiny_135M_v2"], 135_000_000),
        (["peer", "model-v3.5"], None),
        (["gpt-4b2", "4bit", "model-8bit"], None),
        ([None, ""], None),
    ],
)
def test_names_tell_the_size(names: list[str | None], size: int | None) -> None:
    assert parameters_of(*names) == size


def test_a_configuration_tells_more_than_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "Great-7B"
    folder.mkdir()
    assert parameters_of(str(folder)) == 7_000_000_000
    geometry = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1000, **geometry}
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    found = parameters_of(str(folder))
    assert found is not None
    assert 100_000 < found < 1_000_000
