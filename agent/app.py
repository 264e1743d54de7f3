"""The composition root: the one place where settings become a model, tools, a graph and a database.

Every command goes through here, so that all of them hold the same parts, built in the same way and closed in
the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from agent.errors import ConfigurationError
from agent.settings import Settings

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langchain_core.tools import BaseTool
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Command, StateSnapshot

    from agent.chat.model import ChatVLLM
    from agent.engines.base import EngineInfo, StageCallback
    from agent.persistence import Conversation, ConversationStore
    from agent.persistence.opening import OpenCheckpointer
    from agent.persistence.saver import SQLSaver
    from agent.serving.records import ServerDirectory
    from agent.telemetry import RunObserver
    from tools.registry import ToolRegistry

    Graph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]
    Snapshot: TypeAlias = StateSnapshot
    Resume: TypeAlias = Command[Any]

GRAPH_KEY = "graph_id"
"""The label of a run that names its graph. LangGraph keeps it with each checkpoint, and its server writes it
under the same name, so that a conversation begun in Studio is known to the command line too."""
_TEMPERATURE_OF_OTHERS = 0.7
_STEPS_PER_CALL = 2
"""Supersteps of a graph per model call: the call itself, and its tools."""
_SPARE_STEPS = 20
"""What graphs take beside: one that plans takes two for each of its six steps."""
_OWN_ARGUMENTS = frozenset(
    {
        "chat_template",
        "download_dir",
        "dtype",
        "gpu_memory_utilization",
        "max_model_len",
        "reasoning_parser",
        "tensor_parallel_size",
        "tool_parser",
        "trust_remote_code",
    }
)
"""Engine arguments that ``ChatVLLM`` has as fields of its own."""


@dataclass(frozen=True, kw_only=True)
class App:
    """The parts of one agent, open."""

    settings: Settings
    """What they were built from."""

    model: ChatVLLM
    """Not started until it is needed."""

    tools: list[BaseTool]
    """What the model may call."""

    graph: Graph
    """Answers, and remembers in :attr:`store`."""

    store: ConversationStore
    """The conversations."""

    registry: ToolRegistry
    """Where :attr:`tools` were chosen from."""

    observer: RunObserver | None = None
    """Told of every run, if metrics, traces or logs are asked for."""

    def start(self) -> EngineInfo:
        """Start the engine, and say what it is."""
        return self.model.start()

    def variant(self, settings: Settings) -> App:
        """An agent with another graph, other tools or another system prompt, on the same model and database.

        Args:
            settings: Those of this agent, but for these three.

        Raises:
            ConfigurationError: There is no such graph.
            UnknownToolError: There is no such tool.
        """
        tools = self.registry.select(settings.tools)
        graph = build_graph(settings, model=self.model, tools=tools, checkpointer=self.store.saver)
        return replace(self, settings=settings, tools=tools, graph=graph)

    def thread(self, thread_id: str) -> RunnableConfig:
        """The config that runs :attr:`graph` on one conversation."""
        return {
            "configurable": {"thread_id": thread_id},
            "metadata": {GRAPH_KEY: self.settings.graph},
            "recursion_limit": recursion_limit(self.settings),
            "callbacks": [self.observer] if self.observer is not None else [],
        }


@contextmanager
def open_app(
    settings: Settings, *, on_stage: StageCallback | None = None, warm: bool = False
) -> Iterator[App]:
    """Build everything and close it again; no engine starts yet.

    Args:
        settings: What to build.
        on_stage: Told about the stages of the engine's start.
        warm: Whether the model may run in a server that outlives this process, if the settings say so.

    Raises:
        ConfigurationError: The settings cannot be built.
        DatabaseError: The conversations cannot be opened.
        ToolError: A tool does not exist.
    """
    _check_documents(settings)
    model = build_model(settings, on_stage=on_stage, warm=warm)
    with closing(build_registry(settings)) as registry:
        tools = registry.select(settings.tools)
        with open_observer(settings) as observer, open_saver(settings) as saver:
            from agent.persistence import ConversationStore

            saver.observer = observer.checkpoint_write if observer is not None else None
            yield App(
                settings=settings,
                model=model,
                tools=tools,
                graph=build_graph(settings, model=model, tools=tools, checkpointer=saver),
                store=ConversationStore(saver),
                registry=registry,
                observer=observer,
            )
    # Not after Ctrl-C: the engine ends with the process, and one that is still starting would be waited for.
    model.close()


@contextmanager
def open_store(settings: Settings) -> Iterator[ConversationStore]:
    """Open the conversations alone.

    Raises:
        DatabaseError: They cannot be opened.
    """
    from agent.persistence import ConversationStore

    with open_saver(settings) as saver:
        yield ConversationStore(saver)


def graph_of(settings: Settings, thread_id: str) -> str | None:
    """The graph that a conversation was continued with last.

    Args:
        settings: Where the conversations are.
        thread_id: The whole id.

    Returns:
        Its name; ``None`` if there is no such conversation, or none of our graphs has run it.

    Raises:
        DatabaseError: The conversations cannot be opened.
    """
    from graphs.registry import GRAPHS

    with open_store(settings) as store:
        name = store.label(thread_id, GRAPH_KEY)
    return name if name in GRAPHS else None


def list_conversations(
    settings: Settings, *, limit: int, offset: int = 0, tag: str | None = None
) -> Sequence[Conversation]:
    """The conversations used last; quicker than :func:`open_store`, because it loads none of them.

    Raises:
        DatabaseError: They cannot be opened.
    """
    from agent.persistence import list_conversations

    key = settings.encryption_key
    return list_conversations(
        database_location(settings), limit=limit, offset=offset, tag=tag, encryption_key=key
    )


def build_model(settings: Settings, *, on_stage: StageCallback | None = None, warm: bool = False) -> ChatVLLM:
    """Build the chat model; its engine starts with the first call, or with :meth:`ChatVLLM.start`.

    Args:
        settings: What to build.
        on_stage: Told about the stages of the engine's start.
        warm: Whether the model may run in a server that outlives this process, if the settings say so.

    Raises:
        ConfigurationError: The settings contradict each other.
        ModelNotFoundError: There is no such model.
    """
    from agent.chat.model import ChatVLLM

    if warm and settings.base_url is None and settings.warm_minutes:
        return _build_warm_model(settings, on_stage)
    engine = {name: value for name, value in settings.vllm.items() if name in _OWN_ARGUMENTS}
    if others := {name: value for name, value in settings.vllm.items() if name not in engine}:
        engine["vllm_kwargs"] = others
    server = {"base_url": settings.base_url, "api_key": settings.api_key} if settings.base_url else {}
    return ChatVLLM(
        model=settings.model,
        protocol=settings.protocol,
        temperature=_temperature(settings),
        max_tokens=settings.max_tokens,
        on_stage=on_stage,
        **engine,
        **{name: value for name, value in server.items() if value is not None},
    )


def _build_warm_model(settings: Settings, on_stage: StageCallback | None) -> ChatVLLM:
    """Build the chat model on a server that this user has running, or that the first call starts."""
    from agent.chat.model import ChatVLLM
    from agent.engines.config import configured_context
    from agent.serving.engine import warm_engine

    engine = warm_engine(
        settings.model,
        settings.vllm,
        idle_minutes=settings.warm_minutes,
        directory=server_directory(settings),
        on_stage=on_stage,
    )
    return ChatVLLM(
        engine=engine,
        protocol=settings.protocol,
        temperature=_temperature(settings),
        max_tokens=settings.max_tokens,
        max_model_len=settings.vllm.get("max_model_len") or configured_context(engine.order.model),
    )


def server_directory(settings: Settings) -> ServerDirectory:
    """Where the running servers of this user are noted."""
    from agent.serving.records import ServerDirectory

    return ServerDirectory(settings.directory / "servers")


def build_registry(settings: Settings) -> ToolRegistry:
    """Collect the tools that are installed, and those that the tools file names; close it at the end.

    Raises:
        ToolRegistrationError: The tools file, or a source in it, is wrong.
    """
    if settings.tools_config is not None:
        from tools.configuration import load_registry

        return load_registry(settings.tools_config)
    from tools.registry import default_registry

    return default_registry()


def build_tools(settings: Settings) -> list[BaseTool]:
    """The tools that the model may call.

    Raises:
        UnknownToolError: The settings name one that there is not.
    """
    return build_registry(settings).select(settings.tools)


def build_graph(
    settings: Settings, *, model: ChatVLLM, tools: list[BaseTool], checkpointer: SQLSaver | None = None
) -> Graph:
    """Build the graph that the settings name; nothing is started or loaded.

    A graph that answers from documents is built without them too, for example to be drawn; a run of it is
    then an error.

    Raises:
        ConfigurationError: There is no graph of that name.
    """
    from graphs.registry import UnknownGraphError, find_graph

    try:
        kind = find_graph(settings.graph)
    except UnknownGraphError as error:
        raise ConfigurationError(str(error)) from error
    documents = _search(settings) if kind.needs_documents else {}
    return kind.build(
        model=model,
        tools=tools,
        checkpointer=checkpointer,
        system_prompt=settings.system,
        max_steps=settings.max_steps,
        **documents,
    )


def _search(settings: Settings) -> dict[str, Any]:
    from agent.documents import DocumentFolder, open_reranker

    return {
        "retriever": DocumentFolder(folder=settings.documents, embeddings=settings.embeddings),
        "reranker": None if settings.reranker is None else open_reranker(settings.reranker),
    }


def check_settings(settings: Settings, *, registry: ToolRegistry) -> None:
    """Check that there are the graph and the tools that the settings name; nothing is built.

    Args:
        settings: What would be built.
        registry: Where the tools would be chosen from.

    Raises:
        ConfigurationError: There is no such graph, or it cannot run from a command.
        UnknownToolError: There is no such tool.
    """
    from graphs.registry import UnknownGraphError, find_graph

    try:
        find_graph(settings.graph)
    except UnknownGraphError as error:
        raise ConfigurationError(str(error)) from error
    _check_documents(settings)
    registry.select(settings.tools)


def _check_documents(settings: Settings) -> None:
    """Refuse before an engine starts what a run of the graph would refuse."""
    from graphs.registry import GRAPHS

    kind = GRAPHS.get(settings.graph)  # an unknown name is refused when the graph is built
    if kind is not None and kind.needs_documents:
        from agent.documents import check_folder

        check_folder(settings.documents)


def recursion_limit(settings: Settings) -> int:
    """Supersteps that one run of a graph may take: enough for the model calls that the settings allow."""
    return _STEPS_PER_CALL * settings.max_steps + _SPARE_STEPS


def open_saver(settings: Settings) -> OpenCheckpointer:
    """The database of the conversations, to be entered with ``with`` or ``async with``."""
    from agent.persistence import open_checkpointer

    return open_checkpointer(database_location(settings), encryption_key=settings.encryption_key)


@contextmanager
def open_observer(settings: Settings) -> Iterator[RunObserver | None]:
    """What watches the runs, for as long as it is needed; ``None`` if nobody asked for it.

    Raises:
        ConfigurationError: The port of the metrics is taken, or a library is missing.
    """
    from agent.telemetry import open_telemetry

    with open_telemetry(
        metrics_port=settings.metrics_port, otlp_traces_endpoint=settings.otlp_traces_endpoint
    ) as observer:
        yield observer


def uses_embedded_model(settings: Settings) -> bool:
    """Whether the model is the one that comes with the package."""
    return settings.model is None and settings.base_url is None


def database_location(settings: Settings) -> str | Path:
    """The path or URL of the conversations."""
    from agent.persistence.locations import DEFAULT_FILE

    return settings.database or settings.directory / DEFAULT_FILE


def _temperature(settings: Settings) -> float:
    if settings.temperature is not None:
        return settings.temperature
    # Sampling costs a small model more in lost calls than it gains in variety.
    return 0.0 if uses_embedded_model(settings) else _TEMPERATURE_OF_OTHERS
