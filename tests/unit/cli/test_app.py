"""How settings become a model; what no command can see on a scripted engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_doubles import Terminal

import agent.app
import agent.documents
from agent import ChatVLLM, VLLMEmbeddings
from agent.app import build_graph, build_model, open_app
from agent.documents import DocumentFolder, open_embeddings, open_reranker
from agent.engines import ScriptedEngine
from agent.errors import ConfigurationError
from agent.serving.engine import WarmEngine
from agent.settings import Settings
from tools import ToolRegistry
from tools.builtin import calculator
from tools.errors import UnknownToolError


def test_the_embedded_model_is_greedy_and_others_are_not() -> None:
    assert build_model(Settings()).temperature == 0
    assert build_model(Settings(model="owner/name")).temperature == 0.7
    assert build_model(Settings(temperature=1.5)).temperature == 1.5


def test_engine_arguments_arrive_whether_the_model_has_a_field_for_them_or_not() -> None:
    model = build_model(Settings(vllm={"max_model_len": 512, "seed": 3}))
    assert (model.max_model_len, model.vllm_kwargs) == (512, {"seed": 3})


def test_a_server_needs_no_model_and_no_engine() -> None:
    model = build_model(Settings(base_url="http://localhost:8000/v1", api_key="secret", max_tokens=7))
    assert (model.model, model.max_tokens) == (None, 7)
    assert "secret" not in repr(model)


@pytest.mark.parametrize("vllm", [{"seed": 3}, {"max_model_len": 512}])
def test_engine_arguments_and_a_server_contradict_each_other(vllm: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(vllm)) + "|vllm_kwargs"):
        build_model(Settings(base_url="http://localhost:8000/v1", vllm=vllm))


async def test_a_graph_without_its_documents_is_built_and_says_so_when_it_runs() -> None:
    """So that a server of all graphs starts, and its user reads what is missing."""
    model = ChatVLLM(engine=ScriptedEngine([]))
    graph = build_graph(Settings(graph="retrieval"), model=model, tools=[])
    with pytest.raises(ConfigurationError, match="VLLM_AGENT_DOCUMENTS"):
        await graph.ainvoke({"messages": "Hello"})


def test_models_for_documents_are_named_by_the_settings_and_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ChatVLLM(engine=ScriptedEngine([]))
    settings = Settings(graph="retrieval", documents=tmp_path, embeddings=str(tmp_path), reranker="default")
    assert build_graph(settings, model=model, tools=[]).nodes  # drawn and served without an engine
    assert open_reranker("default").model is None
    monkeypatch.setattr("agent.catalogue.hardware.machine_cards", lambda: [])
    embeddings = open_embeddings("a/b")
    assert (embeddings.model, embeddings.too_long) == ("a/b", "truncate")
    assert embeddings.gpu_memory_utilization is None
    monkeypatch.setattr("agent.catalogue.hardware.machine_cards", lambda: ["a card"])
    assert open_embeddings("a/b").gpu_memory_utilization == 0.1  # the model that chats is there too


def test_documents_are_found_by_their_meaning_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pets.md").write_text("A cat sleeps.")
    (tmp_path / "money.md").write_text("Stocks fell.")
    opened = []

    def scripted(name: str) -> VLLMEmbeddings:
        opened.append(name)
        return VLLMEmbeddings(engine=ScriptedEngine([]))

    monkeypatch.setattr(agent.documents, "open_embeddings", scripted)
    by_words = DocumentFolder(folder=tmp_path).invoke("a sleeping cat")
    assert (opened, [each.metadata["source"] for each in by_words]) == ([], ["pets.md"])
    both = DocumentFolder(folder=tmp_path, embeddings="some/model")
    assert [each.metadata["source"] for each in both.invoke("a sleeping cat")] == ["pets.md", "money.md"]
    both.invoke("something else")
    assert opened == ["some/model"]


def test_the_tools_are_closed_with_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    class Registry(ToolRegistry):
        def close(self) -> None:
            closed.append(len(self))
            super().close()

    monkeypatch.setattr(agent.app, "build_registry", lambda settings: Registry([calculator]))
    monkeypatch.setattr(
        agent.app, "build_model", lambda settings, **_: ChatVLLM(engine=ScriptedEngine(["Hello."]))
    )
    settings = Settings(home=tmp_path)
    with open_app(settings) as app:
        assert app.graph.invoke({"messages": "Hello"}, app.thread("t"))["messages"][-1].text == "Hello."
        assert closed == []
    assert closed == [1]
    with pytest.raises(UnknownToolError), open_app(replace(settings, tools=("no such",))):
        pass
    with pytest.raises(RuntimeError), open_app(settings):
        raise RuntimeError("the command failed")
    assert closed == [1, 1, 1]


def test_a_model_is_kept_warm_where_the_command_and_the_settings_say_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64}')
    settings = Settings(model=str(tmp_path), home=tmp_path / "home", warm_minutes=2, vllm={"seed": 3})
    model = build_model(settings, warm=True)
    assert isinstance(model.engine, WarmEngine)
    assert model.engine.order.idle_minutes == 2
    assert model.engine.order.arguments == {"seed": 3}
    assert model.max_model_len == 64
    assert build_model(settings).engine is None
    assert build_model(replace(settings, warm_minutes=0), warm=True).engine is None
    remote = Settings(base_url="http://localhost:8000/v1", warm_minutes=2)
    assert build_model(remote, warm=True).engine is None


@pytest.mark.parametrize(
    ("words", "minutes"), [((), 15), (("--in-process",), 0), (("--base-url", "http://localhost:1/v1"), 15)]
)
def test_a_question_is_asked_of_a_warm_model_unless_it_is_to_run_here(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], minutes: float
) -> None:
    monkeypatch.delenv("VLLM_AGENT_WARM_MINUTES", raising=False)
    asked: list[tuple[float, bool]] = []

    def build(settings: Settings, *, warm: bool = False, **_: object) -> ChatVLLM:
        asked.append((settings.warm_minutes, warm))
        return ChatVLLM(engine=ScriptedEngine(["Hello."]))

    monkeypatch.setattr(agent.app, "build_model", build)
    model = () if "--base-url" in words else ("--model", "scripted")
    assert terminal.run("run", "Hello?", *model, *words).exit_code == 0
    assert asked == [(minutes, True)]
