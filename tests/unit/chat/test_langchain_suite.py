"""LangChain's own suites for chat models, on the scripted engine."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import langchain_tests.unit_tests.chat_models as unit_suite
import pytest
from langchain_core.load import load
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from agent import ChatVLLM
from agent.engines import Reply, ScriptedEngine

SAMPLES = {
    "string": "你好 こ",
    "integer": 3,
    "number": 3.0,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}


def sample(schema: dict[str, Any]) -> Any:
    """Return a value that fits a JSON schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return sample(schema["anyOf"][0])
    if schema.get("properties"):
        return {name: sample(member) for name, member in schema["properties"].items()}
    return SAMPLES[schema.get("type", "string")]


def clever(request: Any) -> Reply:
    """Call the first fitting tool until its result is there, then answer; stop where told to."""
    tools, choice = request.get("tools") or (), request.get("tool_choice", "auto")
    if isinstance(choice, dict):
        tools = [tool for tool in tools if tool["function"]["name"] == choice["function"]["name"]]
    if tools and choice != "none" and request["messages"][-1]["role"] != "tool":
        function = tools[0]["function"]
        call = {"name": function["name"], "arguments": sample(function.get("parameters") or {}) or {}}
        return Reply(tool_calls=[call])
    text = "one two three four five"
    if (request.get("response_format") or {}).get("type", "text") != "text":
        wanted = request["response_format"].get("json_schema", {}).get("schema")
        text = json.dumps(sample(wanted) if wanted else {"setup": "one", "punchline": "two"})
    ends = [text.index(stop) for stop in request.get("stop") or () if stop in text]
    return Reply(text[: min(ends)] if ends else text)


class TestUnit(ChatModelUnitTests):
    """`ChatVLLM` at an address, which is the form that takes LangChain's standard parameters."""

    @property
    def chat_model_class(self) -> type[ChatVLLM]:
        return ChatVLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": "http://localhost:8000/v1", "model": "some-model"}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @pytest.fixture(autouse=True)
    def _allowed_to_be_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """LangChain's loader knows its partners' classes; others have to be allowed by who loads them."""

        def load_ours(value: Any, **options: Any) -> Any:
            return load(value, **{**options, "allowed_objects": [ChatVLLM]})

        monkeypatch.setattr(unit_suite, "load", load_ours)

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"VLLM_API_KEY": "a-key"}, self.chat_model_params, {"api_key": "a-key"}


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class TestIntegration(ChatModelIntegrationTests):
    """Everything that vLLM can do with some model; it takes no PDF from any."""

    @pytest.fixture(autouse=True)
    def _without_a_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The suite fetches its picture and its sound from the web; what is in them is all the same here."""
        answer = httpx.Response(200, content=PIXEL)
        monkeypatch.setattr(httpx, "get", lambda *_, **__: answer)

    @property
    def chat_model_class(self) -> type[ChatVLLM]:
        return ChatVLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"engine": ScriptedEngine([clever], repeat=True)}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {}  # an address and a key contradict an engine that is given

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_audio_inputs(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "another-model"

    @property
    def enable_vcr_tests(self) -> bool:
        return True  # nothing is recorded: there is no HTTP in it
