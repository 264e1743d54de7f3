"""What every engine is: one small protocol that speaks OpenAI chat completions and completions.

One wire form for all engines means that the converters between LangChain and a model exist once, in
:mod:`agent.chat`, and that everything above an engine ignores which one it holds. The form is that of
vLLM's server (https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html): a request is the JSON
body of ``POST /v1/chat/completions`` with vLLM's extra fields at the top level, a response is the JSON
object of the answer, and a stream gives its ``chat.completion.chunk`` objects. Plain texts are continued in
the form of ``POST /v1/completions`` in the same way, and pooling models (embeddings, scores, classes) answer
in the form of vLLM's routes for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from agent.engines.loop import EngineLoop

Request: TypeAlias = Mapping[str, Any]
"""The JSON body of a chat-completions request, or of a completions request."""

Response: TypeAlias = dict[str, Any]
"""The JSON object of an answer, or one chunk of a stream."""

PoolingRoute: TypeAlias = Literal["embeddings", "rerank", "classify", "pooling", "tokenize"]
"""What is asked of a pooling model, by the name of vLLM's route for it."""

StageCallback: TypeAlias = Callable[[str], None]
"""Called with the stage that an engine's start has reached: ``"importing"``, ``"loading"``, …"""


@dataclass(frozen=True)
class EngineInfo:
    """What callers may know about the engine that answers them."""

    kind: str
    """``"in-process"``, ``"warm"`` (in a process that is kept for the next command), ``"remote"`` or
    ``"scripted"``."""

    model: str
    """The model's name as the engine answers to it: a directory, a hub id or a served name."""

    max_model_len: int | None = None
    """Tokens of prompt and answer together that fit one request; None where it is unknown."""

    parameters: int | None = None
    """How many parameters the model has; None where it is unknown."""

    chat_template: str | None = None
    """The Jinja source of the model's chat template; None where the model has none or it is unknown."""

    control_tokens: tuple[str, ...] = ()
    """Texts that the tokenizer turns into single control tokens, longest first."""

    tool_parser: str | None = None
    """vLLM's tool parser for this model's own call format, or ``"server"`` where a server reads the calls by
    itself; None where it has none or it is unknown."""

    reasoning_parser: str | None = None
    """vLLM's reasoning parser for this model; None where it does not think aloud or it is unknown."""

    family: str | None = None
    """The family of models whose format it calls tools in, as in ``agent/protocols/families.toml``."""

    tool_problem: str = ""
    """Why the model's own format is not used although one is known, or was asked for; with the remedy."""

    tasks: tuple[str, ...] = ()
    """What the model does in vLLM's words, its own task first: ``"generate"``, ``"embed"``, ``"classify"``,
    ``"token_classify"``, …; empty where it is unknown."""

    labels: tuple[str, ...] = ()
    """Names of the classes that a classifier tells apart, in its order; empty where they are unknown."""

    version: str = ""
    """The engine's software and version, for people to read."""


@dataclass(frozen=True)
class Explained:
    """What an engine makes of one chat request, before it runs it."""

    prompt: str
    """The prompt, control tokens included."""

    token_ids: tuple[int, ...]
    """The prompt as the model gets it."""

    grammar: str | None
    """What the answer is held to: a grammar, or JSON that describes it as vLLM's structured outputs do."""


@runtime_checkable
class ExplainingEngine(Protocol):
    """An engine that can say what it makes of a request."""

    async def explain(self, request: Request) -> Explained:
        """Return what would be given to the model, without running it.

        Raises:
            RequestError: The engine refuses this request, or cannot tell.
        """
        ...


@runtime_checkable
class Engine(Protocol):
    """A running model.

    The coroutines run on :attr:`loop`; callers on other threads and loops cross over through it.
    """

    @property
    def loop(self) -> EngineLoop:
        """The thread and event loop on which this engine lives."""
        ...

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called or the engine died."""
        ...

    async def start(self) -> EngineInfo:
        """Make the engine ready; the second and later calls return at once.

        Raises:
            EngineStartError: It cannot be started; the message says what to do.
            EngineClosedError: It was closed.
        """
        ...

    async def chat(self, request: Request) -> Response:
        """Answer one request whole.

        Raises:
            RequestError: The engine refuses this request.
            EngineDeadError: The engine died.
            EngineClosedError: The engine was closed.
        """
        ...

    def stream_chat(self, request: Request) -> AsyncIterator[Response]:
        """Answer one request in chunks; closing the iterator frees the request's slot.

        Raises:
            RequestError, EngineDeadError, EngineClosedError: As :meth:`chat`.
        """
        ...

    async def complete(self, request: Request) -> Response:
        """Continue the text ``prompt`` whole, without a chat template: a completions request.

        Raises:
            RequestError, EngineDeadError, EngineClosedError: As :meth:`chat`.
        """
        ...

    def stream_complete(self, request: Request) -> AsyncIterator[Response]:
        """Continue the text ``prompt`` in chunks; closing the iterator frees the request's slot.

        Raises:
            RequestError, EngineDeadError, EngineClosedError: As :meth:`chat`.
        """
        ...

    async def render(self, request: Request) -> list[int]:
        """Return the token ids of the prompt that this request would be given, without running it.

        A request with ``messages`` is rendered by the chat template; one with ``prompt`` is tokenized as it
        stands, whatever its length.

        Raises:
            RequestError: The engine refuses this request, or cannot tell.
        """
        ...

    def close(self) -> None:
        """Free everything; waiting callers get :class:`EngineClosedError`. May be called twice."""
        ...


@runtime_checkable
class PoolingEngine(Engine, Protocol):
    """An engine whose model may be one that answers with vectors, scores or classes."""

    async def pool(self, route: PoolingRoute, request: Request) -> Response:
        """Answer one request to a pooling model whole.

        Args:
            route: Which of vLLM's routes the request is for.
            request: The JSON body of a request to that route.

        Raises:
            UnsupportedTaskError: The model is for another task.
            RequestError, EngineDeadError, EngineClosedError: As :meth:`Engine.chat`.
        """
        ...
