"""vLLM inside this process: every use of vLLM's internal interfaces is in this one file.

vLLM's asynchronous front (``AsyncLLM``) insists on an engine core in a process of its own. On a CPU that
costs half a minute of start-up and a third of the speed, and a child process can be orphaned. Here the core
runs on a thread of this process instead, behind the client interface that the front expects, so there is
nothing to orphan: whatever ends this process ends the engine. Above the front sits vLLM's own OpenAI
serving layer, called without HTTP, for its chat templates, tool parsers and reasoning parsers.

The internals that this rests on (vLLM 0.32) are named in ``tests/contracts/test_vllm_internals.py``, which
fails loudly when one of them moves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import psutil
import torch
import vllm
from starlette.datastructures import State
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason
from vllm.v1.engine import core as core_module
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core import EngineCore
from vllm.v1.engine.core_client import EngineCoreClient, InprocClient
from vllm.v1.engine.exceptions import EngineDeadError as VLLMEngineDeadError

from agent.engines.base import Request, Response, StageCallback
from agent.errors import AgentError, EngineDeadError, EngineError, RequestError

logger = logging.getLogger(__name__)

_STOP = object()
_CPU_KV_CACHE_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """What is known of a model once it is loaded."""

    max_model_len: int
    """Tokens of prompt and answer together."""

    chat_template: str | None
    """Jinja source of the tokenizer's chat template."""

    control_tokens: tuple[str, ...]
    """Texts that the tokenizer turns into single control tokens, longest first."""


_CORES: set[Any] = set()
_CORES_LOCK = threading.Lock()


class _StagedCore(EngineCore):  # type: ignore[misc]  # vLLM is untyped for mypy
    """vLLM's engine core, which says when the weights are loaded and the warm-up begins."""

    on_stage: StageCallback = staticmethod(lambda stage: None)

    def _initialize_kv_caches(self, vllm_config: Any) -> Any:
        self.on_stage("warming up")
        return super()._initialize_kv_caches(vllm_config)

    def shutdown(self) -> None:
        """Free this core's memory; only the last core ends what vLLM shares by process."""
        with _CORES_LOCK:
            _CORES.discard(self)
            if not _CORES:
                super().shutdown()
                return
            with patch.object(core_module, "cleanup_dist_env_and_memory", lambda: None):
                super().shutdown()


class ThreadCoreClient(InprocClient):  # type: ignore[misc]  # vLLM is untyped for mypy
    """The engine core on a thread, with the asynchronous client interface that ``AsyncLLM`` uses.

    Everything that touches the core is a closure in one queue, run by the thread between two steps, so the
    core needs no locks. Results go back to the front's loop.
    """

    engine_ranks_managed = (0,)

    def __init__(
        self, vllm_config: Any, executor_class: Any, log_stats: bool, on_stage: StageCallback
    ) -> None:
        self.resources = SimpleNamespace(engine_dead=False)
        self._loop = asyncio.get_running_loop()
        self._outputs: asyncio.Queue[EngineCoreOutputs | Exception] = asyncio.Queue()
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        ready = threading.Event()
        failure: list[BaseException] = []

        def serve() -> None:
            # The core is built on the thread that steps it: OpenMP teams belong to the thread that made them.
            try:
                core_class = type("EngineCore", (_StagedCore,), {"on_stage": staticmethod(on_stage)})
                self.engine_core = core_class(vllm_config, executor_class, log_stats)
                with _CORES_LOCK:
                    _CORES.add(self.engine_core)
            except BaseException as error:  # carried to the caller's thread whole
                failure.append(error)
                return
            finally:
                ready.set()
            self._serve()

        self._thread = threading.Thread(target=serve, name="vllm-core", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            raise failure[0]

    def _serve(self) -> None:
        core = self.engine_core
        try:
            while True:
                idle = not (core.scheduler.has_requests() or core.batch_queue)
                while idle or not self._work.empty():
                    job = self._work.get()
                    if job is _STOP:
                        return
                    job()
                    idle = False
                if core.scheduler.has_requests() or core.batch_queue:
                    self._step()
        except Exception as error:  # any failure of a step means that the engine is dead
            logger.exception("vLLM's engine core failed")
            self.resources.engine_dead = True
            self._post(VLLMEngineDeadError(), cause=error)
        finally:
            core.shutdown()

    def _step(self) -> None:
        outputs, executed = self.engine_core.step_fn()
        for output in (outputs or {}).values():
            self._post(output)
        self.engine_core.post_step(model_executed=executed)
        if not executed and self.engine_core.scheduler.has_requests():
            time.sleep(0.001)  # waiting for a grammar to compile on another thread

    def _post(self, output: EngineCoreOutputs | Exception, cause: Exception | None = None) -> None:
        if cause is not None and isinstance(output, Exception):
            output.__cause__ = cause
        if isinstance(output, EngineCoreOutputs) and not (output.outputs or output.scheduler_stats):
            return
        try:
            self._loop.call_soon_threadsafe(self._outputs.put_nowait, output)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.resources.engine_dead = True

    # -- what AsyncLLM calls --------------------------------------------------------------------------------

    async def get_output_async(self) -> EngineCoreOutputs:
        """Wait for the results of the next step."""
        output = await self._outputs.get()
        if isinstance(output, Exception):
            raise output
        return output

    async def add_request_async(self, request: EngineCoreRequest) -> None:
        """Hand a request to the core."""
        if self.resources.engine_dead:
            raise VLLMEngineDeadError

        def add() -> None:
            try:
                self.add_request(request)
            except Exception:  # one bad request must not take the engine down
                failed = EngineCoreOutput(request.request_id, [], finish_reason=FinishReason.ERROR)
                self._post(EngineCoreOutputs(outputs=[failed]))

        self._work.put(add)

    async def abort_requests_async(self, request_ids: list[str]) -> None:
        """Free the slots of these requests."""
        if request_ids and not self.resources.engine_dead:
            self._work.put(lambda: self.engine_core.abort_requests(request_ids))

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run ``function`` on the core's thread between two steps and return its result."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def job() -> None:
            try:
                result, error = function(*args), None
            except Exception as caught:  # carried to the caller
                result, error = None, caught
            self._loop.call_soon_threadsafe(settle, result, error)

        self._work.put(job)
        return await future

    async def get_supported_tasks_async(self) -> Any:
        """Return what the model can do: generate, embed, …"""
        return await self.call(self.engine_core.get_supported_tasks)

    async def reset_mm_cache_async(self) -> None:
        """Forget cached images."""
        await self.call(self.engine_core.reset_mm_cache)

    async def reset_prefix_cache_async(self, *args: Any) -> bool:
        """Forget cached prompts."""
        return bool(await self.call(self.engine_core.reset_prefix_cache, *args))

    def shutdown(self, timeout: float | None = None) -> None:
        """Stop the thread and free the core's memory."""
        self.resources.engine_dead = True
        self._work.put(_STOP)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=timeout or 10)


class InProcessServer:
    """vLLM's OpenAI serving layer over a core in this process, without HTTP.

    Must be started and used on one running event loop.
    """

    def __init__(self) -> None:
        self._state = State()
        self._llm: AsyncLLM | None = None

    def load(self, engine_args: dict[str, Any], on_stage: StageCallback) -> LoadedModel:
        """Load the model and warm it up; blocks the loop, which nothing else uses yet."""
        on_stage("loading")
        args = AsyncEngineArgs(**_with_platform_defaults(engine_args))
        config = args.create_engine_config(UsageContext.ENGINE_CONTEXT)

        def make_client(vllm_config: Any, executor_class: Any, log_stats: bool, **_: Any) -> ThreadCoreClient:
            return ThreadCoreClient(vllm_config, executor_class, log_stats, on_stage)

        with patch.object(EngineCoreClient, "make_async_mp_client", staticmethod(make_client)):
            self._llm = AsyncLLM.from_vllm_config(config, disable_log_stats=args.disable_log_stats)
        tokenizer = self._llm.renderer.tokenizer
        special = set(getattr(tokenizer, "all_special_tokens", ()))
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special.update(str(token) for token in added.values() if getattr(token, "special", False))
        return LoadedModel(
            max_model_len=config.model_config.max_model_len,
            chat_template=_template_text(getattr(tokenizer, "chat_template", None)),
            control_tokens=tuple(sorted(special, key=lambda token: (-len(token), token))),
        )

    async def serve(self, engine_args: dict[str, Any], frontend_args: dict[str, Any]) -> None:
        """Put vLLM's OpenAI serving layer on the loaded model."""
        assert self._llm is not None
        namespace = make_arg_parser(FlexibleArgumentParser()).parse_args([])
        for name, value in {**engine_args, **frontend_args}.items():
            setattr(namespace, name, value)
        # The serving layer reads it from here, where its own command line would have put it.
        namespace.structured_outputs_config.reasoning_parser = engine_args.get("reasoning_parser") or ""
        await init_app_state(self._llm, self._state, namespace, await self._llm.get_supported_tasks())

    async def chat(self, request: Request) -> Response:
        """Answer one request whole."""
        answer = await self._create({**request, "stream": False})
        return answer.model_dump(mode="json", exclude_none=True)  # type: ignore[no-any-return]

    async def stream_chat(self, request: Request) -> AsyncGenerator[Response]:
        """Answer one request in chunks."""
        # The usage comes with the last chunk, as OpenAI's clients ask for it.
        stream = await self._create({**request, "stream": True, "stream_options": {"include_usage": True}})
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
        """Return the token ids of the prompt."""
        rendered = await self._translate(
            self._state.openai_serving_chat.render_chat_request(_validated(request))
        )
        _, inputs = rendered
        return list(inputs[0]["prompt_token_ids"])

    async def _create(self, request: dict[str, Any]) -> Any:
        chat = self._state.openai_serving_chat
        if chat is None:
            msg = "this model does not generate text; it is a pooling model"
            raise RequestError(msg)
        return await self._translate(chat.create_chat_completion(_validated(request)))

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

    def shutdown(self) -> None:
        """Stop the core and free its memory."""
        llm, self._llm = self._llm, None
        self._state = State()  # drops the serving layer, and with it the last references to the model
        if llm is not None:
            llm.shutdown()


_DEAD = "the engine died while this request was running; the next call starts a fresh one"


def _validated(request: Request) -> ChatCompletionRequest:
    try:
        return ChatCompletionRequest.model_validate(dict(request))
    except ValueError as error:
        raise RequestError(f"vLLM refuses the request: {error}") from error


def _template_text(template: Any) -> str | None:
    # A tokenizer may carry several named templates; vLLM takes "default" unless told otherwise.
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _with_platform_defaults(engine_args: dict[str, Any]) -> dict[str, Any]:
    """Add what this platform needs and the caller did not choose."""
    if not current_platform.is_cpu():
        return engine_args
    defaults: dict[str, Any] = {
        # Compiling takes minutes on a CPU and gains little for the models that people run there.
        "enforce_eager": True,
        # vLLM would reserve most of the machine's memory for the KV cache.
        "kv_cache_memory_bytes": min(_CPU_KV_CACHE_BYTES, psutil.virtual_memory().available // 4),
        # Small blocks: only whole ones can be served from the prefix cache, and the CPU default is 128.
        "block_size": 32,
        "use_tqdm_on_load": False,  # a progress bar in the middle of the caller's terminal
    }
    if engine_args.get("dtype", "auto") == "auto" and not _fast_bfloat16():
        defaults["dtype"] = "float32"
    chosen = {name: value for name, value in engine_args.items() if name != "dtype" or value != "auto"}
    return {**defaults, **chosen}


def _fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; otherwise float32 is several times faster."""
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


def version() -> str:
    """Return vLLM's version for people to read."""
    return f"vLLM {vllm.__version__}"


def engine_argument_names() -> frozenset[str]:
    """Names of all engine arguments of the installed vLLM."""
    return frozenset(field.name for field in dataclasses.fields(AsyncEngineArgs))
