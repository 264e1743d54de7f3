"""The engine behind an address: a ``vllm serve``, or any other server of OpenAI's chat-completions API.

What other servers lack is found out at the start and named when it is asked of them, never dropped in
silence: a grammar that a server ignores would give broken tool calls.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from pydantic import SecretStr

from agent.engines.base import EngineInfo, Explained, PoolingRoute, Request, Response
from agent.engines.loop import EngineLoop
from agent.engines.remote.connection import (
    CHAT,
    COMPLETIONS,
    Connection,
    ConnectionFailure,
    LostError,
    RefusedError,
    UnreachableError,
)
from agent.engines.remote.discovery import discover
from agent.engines.remote.fields import VLLM_FIELDS
from agent.engines.remote.pooling import PATHS, for_another_task
from agent.engines.remote.shapes import is_answer, is_chunk, is_pooled
from agent.errors import (
    AgentError,
    ConfigurationError,
    EngineClosedError,
    EngineDeadError,
    EngineError,
    EngineStartError,
    ModelNotFoundError,
    RequestError,
    UnsupportedTaskError,
)

_LOG = logging.getLogger(__name__)

# Fields that change the prompt.
_PROMPT_FIELDS = (
    "model",
    "messages",
    "tools",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
)


class RemoteEngine:
    """A model on a server, spoken to over HTTP.

    Args:
        base_url: The server's address, for example ``http://localhost:8000/v1``; the path of the API may be
            left out where it is ``/v1``.
        api_key: The server's key. It is never shown.
        model: The name under which the server serves the model; None where it serves one only.
        timeout: Seconds that the server may stay silent before a call is given up.
        max_retries: How often a call is tried again, with growing pauses, when the server certainly did no
            work for it: nothing listens at the address, or it was too busy and said when to come again. (An
            idle connection that it dropped while a call took it up is replaced once, and counts for nothing.)
        headers: Further headers of each request.
        info: What is known of a vLLM server already, so that it is not asked.
        loop: Where it runs, in the place of a loop of its own; whoever gives it stops it.

    Raises:
        ConfigurationError: ``base_url`` is no address, or a number is out of range.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: SecretStr | str | None = None,
        model: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 2,
        headers: Mapping[str, str] | None = None,
        info: EngineInfo | None = None,
        loop: EngineLoop | None = None,
    ) -> None:
        waits = isinstance(timeout, int | float) and timeout > 0  # NaN is not
        if not waits or not isinstance(max_retries, int) or max_retries < 0:
            msg = f"timeout must be above 0 and max_retries at least 0, got {timeout!r} and {max_retries!r}"
            raise ConfigurationError(msg)
        self._connection = Connection(
            base_url,
            api_key=SecretStr(api_key) if isinstance(api_key, str) else api_key,
            timeout=timeout,
            max_retries=max_retries,
            headers=headers or {},
        )
        self.address = self._connection.address
        self.loop = loop or EngineLoop("vllm-remote")
        self._owns_loop = loop is None
        self._wanted = model
        self._starting: asyncio.Lock | None = None
        self._info = info
        self._is_vllm = info is not None
        self._told: set[str] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"RemoteEngine({self.address!r}, model={self._wanted!r})"

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called. A server that went away may come back, so that is not closed."""
        return self._closed

    # -- start ----------------------------------------------------------------------------------------------

    async def start(self) -> EngineInfo:
        """Ask the server what it is; later calls return at once.

        Raises:
            EngineStartError: Nothing answers at the address, or it is not such a server.
            ModelNotFoundError: The server does not serve that model.
            ConfigurationError: The server refuses the key, or serves several models and none was named.
            EngineClosedError: The engine was closed.
        """
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            self._check_open()
            if self._info is None:
                try:
                    self._info, self._is_vllm = await discover(self._connection, self._wanted)
                except ConnectionFailure as error:
                    raise self._start_error(error) from error
        return self._info

    # -- calls ----------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """Answer one request whole; see :class:`agent.engines.base.Engine`."""
        return await self._whole(CHAT, request)

    async def complete(self, request: Request) -> Response:
        """Continue one text whole; see :class:`agent.engines.base.Engine`."""
        return await self._whole(COMPLETIONS, request)

    def stream_chat(self, request: Request) -> AsyncIterator[Response]:
        """Answer one request in chunks; see :class:`agent.engines.base.Engine`."""
        return self._streamed(CHAT, request)

    def stream_complete(self, request: Request) -> AsyncIterator[Response]:
        """Continue one text in chunks; see :class:`agent.engines.base.Engine`."""
        return self._streamed(COMPLETIONS, request)

    async def _whole(self, path: str, request: Request) -> Response:
        body = await self._body(request)
        try:
            answer = await self._connection.json("POST", path, {**body, "stream": False})
        except ConnectionFailure as error:
            raise await self._meaning(error, body) from error
        if not is_answer(answer, chat=path == CHAT):
            raise self._strange(answer)
        return answer  # type: ignore[no-any-return]  # its form was just looked at

    async def _streamed(self, path: str, request: Request) -> AsyncIterator[Response]:
        # The usage comes with the last chunk, as OpenAI's clients ask for it.
        options = {"stream": True, "stream_options": {"include_usage": True}}
        body = {**await self._body(request), **options}
        ended = False
        try:
            async with aclosing(self._connection.events(path, body)) as events:
                async for data in events:  # read to the end, so that the connection can be used again
                    if data == "[DONE]":
                        ended = True
                        continue
                    chunk = self._parsed(data)
                    ended = ended or any(choice.get("finish_reason") for choice in chunk.get("choices") or ())
                    yield chunk
            if not ended:
                raise LostError("the stream ended in the middle of the answer")
        except ConnectionFailure as error:
            raise await self._meaning(error, body) from error

    async def pool(self, route: PoolingRoute, request: Request) -> Response:
        """Answer one request to a pooling model; see :class:`agent.engines.base.PoolingEngine`.

        A server does not say what its model is for, but it lacks the routes for everything else.
        """
        body = await self._body(request)
        path = PATHS[route]
        try:
            answer = await self._connection.json("POST", path, body)
        except RefusedError as error:
            if for_another_task(error):
                msg = (
                    f"the model {body['model']!r} at {self.address} is not for this task: the server refuses "
                    f"{path} ({error.status}: {error}); serve a model that is, with --runner pooling"
                )
                raise UnsupportedTaskError(msg) from error
            raise await self._meaning(error, body) from error
        except ConnectionFailure as error:
            raise await self._meaning(error, body) from error
        if not is_pooled(answer, route):
            raise self._strange(answer)
        return answer  # type: ignore[no-any-return]  # as in _whole

    async def render(self, request: Request) -> list[int]:
        """Return the token ids of the prompt by vLLM's ``/tokenize``.

        Raises:
            RequestError: The request is refused, or the server has no such route.
        """
        body = await self._body(request)
        fields = (
            "model",
            "messages",
            "prompt",
            "add_special_tokens",
            "chat_template_kwargs",
            "add_generation_prompt",
            "continue_final_message",
        )
        question = {name: body[name] for name in fields if name in body}
        if body.get("tools"):
            question["tools"] = body["tools"]
        try:
            answer = await self._connection.json("POST", "/tokenize", question)
        except RefusedError as error:
            if error.status in (404, 405):
                msg = f"the server at {self.address} has no /tokenize, so the prompt's tokens are unknown"
                raise RequestError(msg) from error
            raise await self._meaning(error, body) from error
        except ConnectionFailure as error:
            raise await self._meaning(error, body) from error
        if not is_pooled(answer, "tokenize"):
            raise self._strange(answer)
        return list(answer["tokens"])

    async def explain(self, request: Request) -> Explained:
        """Return the prompt of a chat request by vLLM's ``/tokenize`` and ``/detokenize``.

        What a server's own parsers hold the answer to is not known here, only what the request itself asks.

        Raises:
            RequestError: The request is refused, or the server has no such routes.
        """
        token_ids = await self.render(request)
        question = {"model": (await self.start()).model, "tokens": token_ids}
        try:
            answer = await self._connection.json("POST", "/detokenize", question)
        except ConnectionFailure as error:
            raise await self._meaning(error, question) from error
        if not isinstance(answer, Mapping) or not isinstance(answer.get("prompt"), str):
            raise self._strange(answer)
        held = request.get("structured_outputs") or request.get("response_format")
        if isinstance(held, Mapping):
            held = held["grammar"] if set(held) == {"grammar"} else json.dumps(held, ensure_ascii=False)
        return Explained(answer["prompt"], tuple(token_ids), held)

    def close(self) -> None:
        """Close all connections; callers that wait get :class:`EngineClosedError`."""
        if self._closed:
            return
        self._closed = True
        if not self.loop.is_current:
            with suppress(EngineClosedError, TimeoutError):
                self.loop.submit(self._connection.aclose()).result(timeout=5)
        if self._owns_loop:
            self.loop.stop()

    async def aclose(self) -> None:
        """Close all connections, from the engine's own loop."""
        self._closed = True
        await self._connection.aclose()

    async def _body(self, request: Request) -> dict[str, Any]:
        info = await self.start()
        body = {**request, "model": request.get("model") or info.model}
        if self._is_vllm:
            return body
        if "messages" in body:  # other servers refuse messages with reasoning in them
            body["messages"] = [
                {name: value for name, value in message.items() if name != "reasoning"}
                for message in body["messages"]
            ]
        body = {
            name: value
            for name, value in body.items()
            if name not in VLLM_FIELDS or value not in (None, VLLM_FIELDS[name])
        }
        if new := sorted((body.keys() & VLLM_FIELDS.keys()) - self._told):
            self._told.update(new)
            _LOG.warning("%s is not vLLM and may ignore: %s", self.address, ", ".join(new))
        return body

    def _parsed(self, data: str) -> Response:
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._strange(data) from error
        if not isinstance(chunk, dict):
            raise self._strange(data)
        if problem := chunk.get("error"):
            told = problem if isinstance(problem, dict) else {"message": str(problem)}
            code = told.get("code")
            status = code if isinstance(code, int) else 500
            raise RefusedError(status, str(told.get("message") or data))
        if not is_chunk(chunk):
            raise self._strange(data)
        return chunk

    # -- errors ---------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            msg = f"the connection to {self.address} was closed; build a new model to go on"
            raise EngineClosedError(msg)

    def _start_error(self, error: ConnectionFailure) -> AgentError:
        if self._closed:
            return EngineClosedError(f"the connection to {self.address} was closed while it was being made")
        if isinstance(error, UnreachableError):
            return EngineStartError(
                f"nothing answers at {self.address} ({error}); start a server there with "
                "`vllm-agent serve MODEL` or `vllm serve MODEL`, or give the right base_url"
            )
        if isinstance(error, RefusedError) and error.status in (401, 403):
            return self._key_error(error)
        if isinstance(error, RefusedError) and error.status in (404, 405):
            return EngineStartError(
                f"the server at {self.address} has no list of models ({error.status}: {error}); base_url "
                "must end with the path of its OpenAI API, mostly /v1; or give model="
            )
        return EngineStartError(f"the server at {self.address} cannot be used: {error}")

    async def _meaning(self, error: ConnectionFailure, body: Mapping[str, Any]) -> AgentError:
        """Translate a call's failure."""
        if self._closed:
            return EngineClosedError(
                f"the connection to {self.address} was closed while this call was waiting"
            )
        if not isinstance(error, RefusedError):
            what = (
                "does not answer any more" if isinstance(error, UnreachableError) else "broke this call off"
            )
            return EngineDeadError(
                f"the server at {self.address} {what} ({error}); see its log, start it again if it has "
                "ended, and repeat the call"
            )
        status = error.status
        if status in (401, 403):
            return self._key_error(error)
        if status == 404:
            return ModelNotFoundError(f"the server at {self.address} has no {body['model']!r}: {error}")
        if status in (408, 429) or status >= 500:
            if status >= 500 and await self._is_dead():
                return EngineDeadError(
                    f"the engine of the server at {self.address} died ({error}); see the server's log and "
                    "start it again"
                )
            return EngineError(f"the server at {self.address} failed ({status}): {error}")
        own = sorted(body.keys() & VLLM_FIELDS.keys())
        hint = f" (it is not vLLM, and these fields are vLLM's own: {', '.join(own)})" if own else ""
        return RequestError(f"{error}{'' if self._is_vllm else hint}")

    async def _is_dead(self) -> bool:
        """Ask a vLLM server whether its engine still lives, which one failed request does not tell."""
        if not self._is_vllm:
            return False
        try:
            await self._connection.json("GET", "/health")
        except ConnectionFailure:
            return True
        return False

    def _key_error(self, error: RefusedError) -> ConfigurationError:
        return ConfigurationError(
            f"the server at {self.address} refuses the API key ({error.status}: {error}); give api_key=, or "
            "set VLLM_API_KEY"
        )

    def _strange(self, answer: Any) -> EngineError:
        return EngineError(f"the server at {self.address} answers in no known form: {str(answer)[:200]!r}")
