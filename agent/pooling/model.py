"""What all pooling models share: their arguments, their hold on an engine, and batching."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError

from agent.chat.characters import whole
from agent.chat.life import HoldsEngine
from agent.chat.opening import EngineChoice, explain, given_names, refuse_unknown, remote_arguments
from agent.chat.session import Session
from agent.engines.base import EngineInfo, PoolingEngine, PoolingRoute, Request, Response, StageCallback
from agent.engines.loop import together
from agent.errors import ConfigurationError, EngineError, RequestError
from agent.pooling.limits import too_long

T = TypeVar("T")

_LOCAL = (
    "dtype",
    "tensor_parallel_size",
    "gpu_memory_utilization",
    "max_model_len",
    "download_dir",
    "trust_remote_code",
)
_IN_FLIGHT = 4  # requests at once: the next ones are tokenized while the engine computes


class PoolingModel(HoldsEngine, BaseModel):
    """The arguments and the engine of a pooling model.

    The engine starts with the first call (or :meth:`start`), is shared with all models of the same
    configuration in this process, and batches the calls of all of them.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    model: str | None = None
    """Hub id or local directory; with ``base_url`` the name under which the server serves it."""

    base_url: str | None = None
    """A server's address, for example ``http://localhost:8000/v1``, in the place of vLLM in this process."""

    api_key: SecretStr | None = None
    """The server's key; by default that of the environment variable ``VLLM_API_KEY``."""

    timeout: float = Field(default=600.0, gt=0)
    """Seconds that the server may stay silent."""

    max_retries: int = Field(default=2, ge=0)
    """How often a call is tried again when the server certainly did no work for it."""

    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    """Number format of the weights; by default float32 ones are computed in 16 bits on a card."""

    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs to split the weights over."""

    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Part of the card's memory to use; by default vLLM's own."""

    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of one text at most; by default what the model is made for."""

    download_dir: str | None = None
    """Where weights are stored; by default the hub's cache."""

    trust_remote_code: bool = False
    """Whether code that comes with a model may run. Never turned on implicitly."""

    vllm_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Any other argument of ``vllm.EngineArgs``: ``{"pooler_config": {"pooling_type": "CLS"}}``, …"""

    too_long: Literal["error", "truncate"] = "error"
    """What becomes of a text that has more tokens than the model takes: an error that names it, or its
    beginning alone is used."""

    batch_size: int = Field(default=128, ge=1)
    """Texts in one request to the engine, which computes several requests at once."""

    engine: PoolingEngine | None = Field(default=None, exclude=True, repr=False)
    """An engine that exists already, for example a :class:`~agent.engines.ScriptedEngine`."""

    on_stage: StageCallback | None = Field(default=None, exclude=True, repr=False)
    """Called with each stage of the engine's start."""

    @classmethod
    def _default_model(cls) -> Callable[[], Path] | None:
        """Return what fetches the model for those who name none; None where there is none."""
        return None

    _not_copied: ClassVar[frozenset[str]] = frozenset({"engine", "on_stage", "callbacks"})
    _session: Session = PrivateAttr()

    def __init__(self, **arguments: Any) -> None:
        refuse_unknown(type(self), arguments)
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            raise ConfigurationError(explain(error, f"{type(self).__name__} cannot be built")) from error
        self._session = Session(self._opener(), "text", given=self.engine is not None)

    def _opener(self) -> Callable[[], Any]:
        if (
            self.model is None
            and self.base_url is None
            and self.engine is None
            and self._default_model() is None
        ):
            msg = f"{type(self).__name__} needs model=, a hub id or a directory, or base_url= of a server"
            raise ConfigurationError(msg)
        return EngineChoice(
            model=self.model,
            base_url=self.base_url,
            engine=self.engine,
            remote=remote_arguments(self),
            local={**{name: getattr(self, name) for name in _LOCAL}, "runner": "pooling", **self._local()},
            vllm_kwargs=self.vllm_kwargs,
            given=given_names(self),
            embedded=self._default_model(),
            on_stage=self.on_stage,
        ).opener()

    def _local(self) -> Mapping[str, Any]:
        """Further engine arguments that a kind of model needs in this process."""
        return {}

    # -- calls ----------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with _closed_on_failure(work):
            loop = self._session.loop
        return loop.run(work)

    async def _arun(self, work: Coroutine[Any, Any, T]) -> T:
        with _closed_on_failure(work):
            loop = await self._session.loop_from_afar()
        return await loop.arun(work)

    async def _started(self) -> tuple[PoolingEngine, EngineInfo]:
        engine, info = await self._session.started()
        if not isinstance(engine, PoolingEngine):
            raise ConfigurationError(f"{engine!r} has no method `pool`, which pooling models need")
        return engine, info

    async def _ask(
        self, route: PoolingRoute, request: Request, texts: Sequence[str], first: int = 0
    ) -> Response:
        """Make one request.

        Args:
            route: Which of vLLM's routes.
            request: Its body.
            texts: What of it may be too long, one after the other.
            first: The number of the first of them among all of the call.
        """
        engine, _ = await self._started()
        body = dict(request)
        if self.too_long == "truncate" and route != "tokenize":
            body["truncate_prompt_tokens"] = -1  # vLLM's word for: as many as the model takes
        try:
            return await engine.pool(route, body)
        except RequestError as error:
            raise await too_long(error, engine, texts, first) or error from error

    async def _items(
        self, route: PoolingRoute, request: Request, texts: Sequence[str], first: int = 0
    ) -> list[Any]:
        """Make one request (see :meth:`_ask`), and return what it says of each text, in their order."""
        answer = await self._ask(route, request, texts, first)
        items = answer["results" if route == "rerank" else "data"]
        if texts and len(items) != len(texts):
            raise EngineError(f"the engine answered {len(items)} of {len(texts)} texts; see the server's log")
        return sorted(items, key=lambda item: item["index"])

    async def _batched(
        self, texts: Sequence[str], ask: Callable[[Sequence[str], int], Coroutine[Any, Any, list[T]]]
    ) -> list[T]:
        """Ask for all texts in requests of :attr:`batch_size`, some at once; answers are in their order.

        The first failure ends the others.
        """
        texts = _checked(texts, type(self).__name__)
        places = asyncio.Semaphore(_IN_FLIGHT)

        async def one(first: int) -> list[T]:
            async with places:
                return await ask(texts[first : first + self.batch_size], first)

        answered = await together([one(first) for first in range(0, len(texts), self.batch_size)])
        return [answer for answers in answered for answer in answers]


@contextmanager
def _closed_on_failure(work: Coroutine[Any, Any, Any]) -> Iterator[None]:
    """Close work that is not begun: the model is closed, there is no such model, or the caller has gone."""
    try:
        yield
    except BaseException:
        work.close()
        raise


def _checked(texts: Sequence[Any], name: str) -> list[str]:
    """Return the texts with characters that a tokenizer takes."""
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigurationError(f"{name} takes texts, and number {number} is {text!r:.100}")
    return [whole(text) for text in texts]
