"""vLLM's OpenAI serving layer on a core in this process, called without HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from starlette.datastructures import State
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.tokenize.protocol import TokenizeCompletionRequest
from vllm.renderers.hf import HfRenderer
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core_client import EngineCoreClient

from agent.engines.base import Explained, PoolingRoute, Request, Response, StageCallback
from agent.engines.inprocess.caches import forget_tokenizers
from agent.engines.inprocess.core import ThreadCoreClient
from agent.engines.inprocess.forms import validated
from agent.engines.inprocess.platform import import_worker, with_config_objects, with_platform_defaults
from agent.engines.inprocess.pooling import labels, pooled
from agent.engines.inprocess.protocol import check_parser_names, chosen, explained, own_control_tokens, probed
from agent.errors import AgentError, EngineDeadError, EngineError, RequestError, UnsupportedTaskError
from agent.protocols.choice import Choice, Wanted


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """What is known of a model once it is loaded."""

    max_model_len: int
    """Tokens of prompt and answer together."""

    choice: Choice
    """The template and the parsers that it is used with."""

    problem: str
    """Why vLLM's tool parser is not used although there is one; empty where it is, or there is none."""

    control_tokens: tuple[str, ...]
    """Texts that the tokenizer turns into single control tokens, longest first."""

    labels: tuple[str, ...] = ()
    """Names of the classes that it tells apart."""


class InProcessServer:
    """vLLM's OpenAI serving layer over a core in this process, without HTTP.

    Must be started and used on one running event loop.
    """

    def __init__(self) -> None:
        self._state = State()
        self._llm: AsyncLLM | None = None
        self.tasks: tuple[str, ...] = ()
        """What the model does in vLLM's words, its own task first."""

    def load(self, engine_args: dict[str, Any], wanted: Wanted, on_stage: StageCallback) -> LoadedModel:
        """Load the model and warm it up; blocks the loop, which nothing else uses yet."""
        check_parser_names(wanted)
        args = AsyncEngineArgs(**with_platform_defaults(with_config_objects(engine_args)))
        # Batches of the size that suits the card, as for its server; other uses get 128 requests at most.
        config = args.create_engine_config(UsageContext.OPENAI_API_SERVER)
        import_worker(config.parallel_config)
        on_stage("loading")
        choice, problem = chosen(config.model_config, wanted)
        if choice.reasoning_parser:  # the core must know it: no grammar holds while the model thinks
            args.reasoning_parser = choice.reasoning_parser
            config = args.create_engine_config(UsageContext.OPENAI_API_SERVER)

        def make_client(vllm_config: Any, executor_class: Any, log_stats: bool, **_: Any) -> ThreadCoreClient:
            return ThreadCoreClient(vllm_config, executor_class, log_stats, on_stage)

        with patch.object(EngineCoreClient, "make_async_mp_client", staticmethod(make_client)):
            self._llm = AsyncLLM.from_vllm_config(config, disable_log_stats=args.disable_log_stats)
        return LoadedModel(
            max_model_len=config.model_config.max_model_len,
            choice=choice,
            problem=problem,
            control_tokens=own_control_tokens(self._llm.renderer.tokenizer),
            labels=labels(config.model_config.hf_config),
        )

    async def serve(
        self, engine_args: dict[str, Any], choice: Choice, frontend_args: dict[str, Any]
    ) -> tuple[Choice, str]:
        """Put vLLM's OpenAI serving layer on the loaded model.

        Returns:
            What it is used with, and why that is without a tool parser where one was chosen: a parser that
            does not read what the template writes is left out.
        """
        await self._serve(engine_args, choice, frontend_args)
        serving, used, problem = self._serving("openai_serving_chat"), choice, ""
        if choice.tool_parser is not None and serving is not None:
            used, problem = await probed(serving, choice)
            if used != choice:
                await self._serve(engine_args, used, frontend_args)
        return used, problem

    async def _serve(
        self, engine_args: dict[str, Any], choice: Choice, frontend_args: dict[str, Any]
    ) -> None:
        assert self._llm is not None
        namespace = make_arg_parser(FlexibleArgumentParser()).parse_args([])
        parsers = {
            "chat_template": choice.chat_template if choice.replaces else None,
            "tool_call_parser": choice.tool_parser,
            "enable_auto_tool_choice": choice.tool_parser is not None,
        }
        for name, value in {**with_config_objects(engine_args), **frontend_args, **parsers}.items():
            setattr(namespace, name, value)
        namespace.chat_template = namespace.chat_template or self._own_template()
        # The serving layer reads it from here, where its own command line would have put it.
        namespace.structured_outputs_config.reasoning_parser = choice.reasoning_parser or ""
        supported = await self._llm.get_supported_tasks()
        await init_app_state(self._llm, self._state, namespace, supported)
        own = self._llm.model_config.get_pooling_task(supported)
        self.tasks = tuple(dict.fromkeys(task for task in (own, *supported) if task is not None))

    def _own_template(self) -> str | None:
        """Return the template that vLLM would come to anyway; None where it must look for it.

        It asks for a processor's template first, and loads the tokenizer a second time to learn that a
        text-only model has no processor.
        """
        assert self._llm is not None
        renderer = self._llm.renderer
        if self._llm.model_config.runner_type == "pooling":
            return None  # a reranker's own is often that of the chat model it was made from
        if not isinstance(renderer, HfRenderer) or self._llm.model_config.is_multimodal_model:
            return None
        template = getattr(renderer.tokenizer, "chat_template", None)
        # One of several would hide the others; a text without a bracket would be taken for a path.
        return template if isinstance(template, str) and "{" in template else None

    async def chat(self, request: Request) -> Response:
        """Answer one chat request whole."""
        with self._announced():
            answer = await self._chat({**request, "stream": False})
        return answer.model_dump(mode="json", exclude_none=True)  # type: ignore[no-any-return]

    async def stream_chat(self, request: Request) -> AsyncGenerator[Response]:
        """Answer one chat request in chunks."""
        with self._announced():
            async with aclosing(self._chunks(await self._chat({**request, **_STREAMED}))) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def complete(self, request: Request) -> Response:
        """Continue one text whole."""
        with self._announced():
            answer = await self._complete({**request, "stream": False})
        return answer.model_dump(mode="json", exclude_none=True)  # type: ignore[no-any-return]

    async def stream_complete(self, request: Request) -> AsyncGenerator[Response]:
        """Continue one text in chunks."""
        with self._announced():
            async with aclosing(self._chunks(await self._complete({**request, **_STREAMED}))) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _announced(self) -> AbstractContextManager[None]:
        """Let the core know that a request is on its way."""
        return nullcontext() if self._llm is None else self._llm.engine_core.arrivals.announced()

    async def _chunks(self, stream: AsyncGenerator[str]) -> AsyncGenerator[Response]:
        try:
            async for event in stream:
                data = event.removeprefix("data: ").strip()
                if data == "[DONE]":
                    return
                chunk = json.loads(data)
                if "error" in chunk:
                    raise self._failure(chunk["error"].get("message", data), chunk["error"].get("code"))
                yield chunk
        finally:
            await stream.aclose()

    async def render(self, request: Request) -> list[int]:
        """Return the token ids of the prompt: of a conversation, or of a text of any length."""
        if "prompt" in request:
            question = {name: request[name] for name in ("prompt", "add_special_tokens") if name in request}
            wanted = validated(TokenizeCompletionRequest.model_validate, question)
            tokenized = await self._translate(self._state.serving_tokenization.create_tokenize(wanted, None))
            return list(tokenized.tokens)
        rendered = await self._translate(
            self._generating("openai_serving_chat").render_chat_request(
                validated(ChatCompletionRequest.model_validate, request)
            )
        )
        _, inputs = rendered
        return list(inputs[0]["prompt_token_ids"])

    async def explain(self, request: Request) -> Explained:
        """Return the prompt of a chat request, and what vLLM holds the answer to."""
        token_ids = await self.render(request)
        serving = self._generating("openai_serving_chat")
        return explained(serving, validated(ChatCompletionRequest.model_validate, request), token_ids)

    async def _chat(self, request: dict[str, Any]) -> Any:
        serving = self._generating("openai_serving_chat")
        return await self._translate(
            serving.create_chat_completion(validated(ChatCompletionRequest.model_validate, request))
        )

    async def _complete(self, request: dict[str, Any]) -> Any:
        serving = self._generating("openai_serving_completion")
        return await self._translate(
            serving.create_completion(validated(CompletionRequest.model_validate, request))
        )

    async def pool(self, route: PoolingRoute, request: Request) -> Response:
        """Answer one request to a pooling model."""
        return await self._translate(pooled(self._state, route, request, self.tasks))  # type: ignore[no-any-return]

    def _serving(self, name: str) -> Any:
        """Return one part of the serving layer; None where it has no such part for this model."""
        return getattr(self._state, name, None)

    def _generating(self, name: str) -> Any:
        serving = self._serving(name)
        if serving is None:
            msg = (
                f"this model generates no text, it is one for: {', '.join(self.tasks)}; take one that does, "
                "or use VLLMEmbeddings, VLLMReranker, VLLMClassifier and so on with this one"
            )
            raise UnsupportedTaskError(msg)
        return serving

    async def _translate(self, call: Any) -> Any:
        """Await one call of the serving layer; its errors become ours."""
        try:
            result = await call
        except Exception as error:
            if isinstance(error, AgentError):
                raise
            # As its HTTP server does it, vLLM's serving layer would answer with this.
            answer = create_error_response(error).error
            raise self._failure(answer.message, answer.code) from error
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # the serving layer turns this into an answer
            raise asyncio.CancelledError
        if isinstance(result, ErrorResponse):
            raise self._failure(result.error.message, result.error.code)
        return result

    def _failure(self, message: str, status: int | None) -> EngineError:
        if self._llm is None or self._llm.errored:
            return EngineDeadError(_DEAD)
        if status is None or status < 500:
            return RequestError(message)
        return EngineError(f"vLLM failed on this request: {message}")

    @property
    def dead(self) -> bool:
        """Whether the core has failed; it may do so while nobody waits, when a worker process ends."""
        return self._llm is not None and self._llm.errored

    def shutdown(self) -> None:
        """Stop the core and free its memory."""
        llm, self._llm = self._llm, None
        self._state = State()  # drops the serving layer, and with it the last references to the model
        if llm is not None:
            llm.shutdown()
            forget_tokenizers()

    @staticmethod
    def return_device_memory() -> None:
        """Give what torch keeps for later back to the card, where the next engine looks for free memory."""
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()


_DEAD = "the engine died while this request was running; the next call starts a fresh one"


# The usage comes with the last chunk, as OpenAI's clients ask for it.
_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
