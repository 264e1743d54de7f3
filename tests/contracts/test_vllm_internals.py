"""The internals of vLLM that `agent/engines/inprocess` rests on are where they were.

When one of these fails after an upgrade of vLLM, read what moved, change that package, then this list.
"""

from __future__ import annotations

import gc
import inspect
import json
import weakref
from importlib import import_module
from typing import Any

import pytest

from agent.protocols.families import Family, families

ADVICE = "vLLM changed under agent/engines/inprocess: adapt that package, then this test"


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def expect(condition: object, what: str) -> None:
    assert condition, f"{what}. {ADVICE}"


HOMES = {
    "vllm": "vllm",
    "arg_utils": "vllm.engine.arg_utils",
    "cli_args": "vllm.entrypoints.launchers.cli_args",
    "app_state": "vllm.entrypoints.launchers.api_server.app_state",
    "protocol": "vllm.entrypoints.openai.chat_completion.protocol",
    "serving": "vllm.entrypoints.openai.chat_completion.serving",
    "completion_protocol": "vllm.entrypoints.openai.completion.protocol",
    "completion_serving": "vllm.entrypoints.openai.completion.serving",
    "tokenize_protocol": "vllm.entrypoints.serve.tokenize.protocol",
    "tokenize_serving": "vllm.entrypoints.serve.tokenize.serving",
    "entry": "vllm.entrypoints.launchers.api_server.entry",
    "serve": "vllm.entrypoints.cli.serve",
    "error_response": "vllm.entrypoints.serve.exception_handling.error_response",
    "engine": "vllm.v1.engine",
    "async_llm": "vllm.v1.engine.async_llm",
    "core": "vllm.v1.engine.core",
    "core_client": "vllm.v1.engine.core_client",
    "hf": "vllm.renderers.hf",
    "online_renderer": "vllm.renderers.online_renderer",
    "parser_manager": "vllm.parser.parser_manager",
    "abstract_parser": "vllm.parser.abstract_parser",
    "tool_parsers": "vllm.tool_parsers",
    "tokenizers": "vllm.tokenizers",
    "model_config": "vllm.config.model",
    "pooling": "vllm.entrypoints.pooling.factories",
    "pooling_serving": "vllm.entrypoints.pooling.base.serving",
}


@pytest.fixture(scope="module")
def modules() -> dict[str, Any]:
    return {name: import_module(home) for name, home in HOMES.items()}


def test_version(modules: dict[str, Any]) -> None:
    version = modules["vllm"].__version__
    expect(version.startswith("0.32."), f"vLLM is {version}, and its internals were read at 0.32")


@pytest.mark.parametrize(
    ("module", "path", "wanted"),
    [
        ("arg_utils", "AsyncEngineArgs.create_engine_config", ["self", "usage_context"]),
        ("async_llm", "AsyncLLM.from_vllm_config", ["vllm_config", "disable_log_stats"]),
        ("async_llm", "AsyncLLM.shutdown", ["self", "timeout"]),
        ("arg_utils", "AsyncEngineArgs.create_model_config", ["self"]),
        ("entry", "init_app_state", ["engine_client", "state", "args", "supported_tasks"]),
        ("serve", "ServeSubcommand.cmd", ["args"]),
        ("cli_args", "validate_parsed_serve_args", ["args"]),
        ("async_llm", "AsyncLLM.get_supported_tasks", ["self"]),
        (
            "core_client",
            "EngineCoreClient.make_async_mp_client",
            ["vllm_config", "executor_class", "log_stats"],
        ),
        ("core_client", "InprocClient.add_request", ["self", "request"]),
        ("core", "EngineCore.__init__", ["self", "vllm_config", "executor_class", "log_stats"]),
        ("core", "EngineCore._initialize_kv_caches", ["self", "vllm_config"]),
        ("core", "EngineCore.post_step", ["self", "model_executed"]),
        ("core", "EngineCore.abort_requests", ["self", "request_ids"]),
        ("core", "EngineCore.get_supported_tasks", ["self"]),
        ("core", "EngineCore.reset_mm_cache", ["self"]),
        ("core", "EngineCore.reset_prefix_cache", ["self"]),
        ("core", "EngineCore.shutdown", ["self"]),
        ("core", "EngineCore.step", ["self"]),
        ("cli_args", "make_arg_parser", ["parser"]),
        ("app_state", "init_app_state", ["engine_client", "state", "args", "supported_tasks"]),
        ("serving", "OpenAIServingChat.create_chat_completion", ["self", "request"]),
        ("serving", "OpenAIServingChat.render_chat_request", ["self", "request"]),
        (
            "serving",
            "OpenAIServingChat._make_parser",
            ["self", "request", "tokenizer", "chat_template_kwargs"],
        ),
        ("serving", "OpenAIServingChat._effective_chat_template_kwargs", ["self", "request"]),
        ("online_renderer", "OnlineRenderer.render_chat", ["self", "request"]),
        ("hf", "resolve_chat_template", ["tokenizer", "chat_template", "tools", "model_config"]),
        (
            "parser_manager",
            "ParserManager.get_parser",
            ["tool_parser_name", "reasoning_parser_name", "enable_auto_tools", "is_harmony", "tokenizer"],
        ),
        ("abstract_parser", "Parser.adjust_request", ["self", "request"]),
        ("abstract_parser", "Parser.set_prompt_token_ids", ["self", "prompt_token_ids"]),
        (
            "abstract_parser",
            "Parser.parse",
            ["self", "model_output", "request", "enable_auto_tools", "model_output_token_ids"],
        ),
        (
            "abstract_parser",
            "Parser.parse_delta",
            ["self", "delta_text", "delta_token_ids", "request", "prompt_token_ids", "finished"],
        ),
        ("tool_parsers", "ToolParserManager.register_module", ["name", "module"]),
        ("tool_parsers", "ToolParserManager.import_tool_parser", ["plugin_path"]),
        ("tokenizers", "cached_tokenizer_from_config", ["model_config"]),
        ("completion_serving", "OpenAIServingCompletion.create_completion", ["self", "request"]),
        ("tokenize_serving", "ServingTokenization.create_tokenize", ["self", "request", "raw_request"]),
        ("error_response", "create_error_response", ["message"]),
        ("model_config", "ModelConfig.get_pooling_task", ["self", "supported_tasks"]),
        ("pooling_serving", "PoolingBaseServing.__call__", ["self", "request"]),
    ],
)
def test_signatures(modules: dict[str, Any], module: str, path: str, wanted: list[str]) -> None:
    found = modules[module]
    for name in path.split("."):
        expect(hasattr(found, name), f"{module}.{path} is gone")
        found = getattr(found, name)
    here = parameters(found)
    missing = [name for name in wanted if name not in here and name != "self"]
    expect(not missing, f"{module}.{path} has no {missing} any more; it takes {here}")


def test_the_front_calls_only_what_our_client_has(modules: dict[str, Any]) -> None:
    from agent.engines.inprocess import ThreadCoreClient

    source = inspect.getsource(modules["async_llm"].AsyncLLM)
    expect("EngineCoreClient.make_async_mp_client(" in source, "AsyncLLM makes its client in another way")
    for name in (
        "add_request_async",
        "abort_requests_async",
        "get_output_async",
        "get_supported_tasks_async",
    ):
        expect(f"engine_core.{name}(" in source, f"AsyncLLM does not call {name} any more")
        expect(name in vars(ThreadCoreClient), f"our client lacks {name}")
    expect("engine_core.resources.engine_dead" in source, "AsyncLLM asks in another way for death")


def test_the_core_is_stepped_as_vllms_own_loop_does_it(modules: dict[str, Any]) -> None:
    source = inspect.getsource(modules["core"].EngineCoreProc._process_engine_step)
    for part in ("self.step_fn()", "self.post_step(model_executed)"):
        expect(part in source, f"EngineCoreProc steps without {part}")
    source = inspect.getsource(modules["core"].EngineCore.__init__)
    for name in ("self.scheduler", "self.batch_queue", "self.step_fn"):
        expect(name in source, f"EngineCore has no {name}")


def test_parsers_that_wait_are_told_of_the_end(modules: dict[str, Any]) -> None:
    source = inspect.getsource(modules["abstract_parser"].DelegatingParser._flush_engine_parsers)
    for name in ("engine_based_streaming", "finish_streaming"):
        expect(name in source, f"a stream ends without {name}, on which our parsers rest")


def test_pooling_models_have_their_parts_of_the_state(modules: dict[str, Any]) -> None:
    source = inspect.getsource(modules["pooling"])
    for name in ("serving_embedding", "serving_classification", "serving_scores", "serving_pooling"):
        expect(f"state.{name} = " in source, f"the state has no {name} any more")


def test_batches_get_the_size_that_suits_a_server(modules: dict[str, Any]) -> None:
    from vllm.usage.usage_lib import UsageContext

    for sizes in modules["arg_utils"].EngineArgs.get_batch_defaults(1):
        expect(UsageContext.OPENAI_API_SERVER in sizes, "batch sizes are not chosen for servers any more")
        expect(UsageContext.ENGINE_CONTEXT not in sizes, "batch sizes are chosen for engines alone, too")


def test_the_workers_of_several_cards_end_with_this_process(modules: dict[str, Any]) -> None:
    from vllm import envs
    from vllm.v1.executor import multiproc_executor

    expect("VLLM_WORKER_MULTIPROC_METHOD" in envs.environment_variables, "workers are started in another way")
    source = inspect.getsource(multiproc_executor.WorkerProc)
    for part in ("monitor_death_pipe(", "death_pipe.recv()"):
        expect(part in source, f"workers do not watch for the end of their parent with {part!r}")
    expect("daemon=True" in source, "workers would be waited for at exit")


def test_a_given_template_spares_the_search_for_one(modules: dict[str, Any]) -> None:
    from vllm.config import ModelConfig
    from vllm.renderers import hf

    expect(hasattr(hf, "HfRenderer"), "vllm.renderers.hf has no HfRenderer")
    expect(isinstance(ModelConfig.is_multimodal_model, property), "ModelConfig.is_multimodal_model is gone")
    source = inspect.getsource(hf.resolve_chat_template)
    expect(
        source.index("if chat_template is not None") < source.index("_try_get_processor_chat_template"),
        "a given chat template does not come first",
    )


def test_the_worker_is_known_before_it_is_needed(modules: dict[str, Any]) -> None:
    from vllm.config import ParallelConfig
    from vllm.utils.import_utils import resolve_obj_by_qualname

    expect(resolve_obj_by_qualname("json.loads") is json.loads, "resolve_obj_by_qualname imports nothing")
    config = ParallelConfig()
    expect(config.world_size == 1, "ParallelConfig.world_size is not the number of workers")
    expect(isinstance(config.worker_cls, str), "ParallelConfig.worker_cls is no name")


def test_dictionaries_become_what_vllm_llm_makes_of_them() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    from agent.engines.inprocess.platform import with_config_objects

    given = {"structured_outputs_config": {"backend": "guidance"}, "profiler_config": {}, "seed": 1}
    args = AsyncEngineArgs(**with_config_objects(given))
    expect(args.structured_outputs_config.backend == "guidance", "StructuredOutputsConfig has no backend")
    expect(not isinstance(args.profiler_config, dict), "ProfilerConfig is not made")
    left = AsyncEngineArgs(**given)
    message = "EngineArgs converts them itself: with_config_objects is no longer needed"
    expect(isinstance(left.structured_outputs_config, dict), message)


def test_records(modules: dict[str, Any]) -> None:
    engine = modules["engine"]
    failed = engine.EngineCoreOutput("id", [], finish_reason=engine.FinishReason.ERROR)
    outputs = engine.EngineCoreOutputs(outputs=[failed])
    expect(outputs.outputs[0].request_id == "id", "EngineCoreOutput starts with something else than the id")
    expect(hasattr(outputs, "scheduler_stats"), "EngineCoreOutputs has no scheduler_stats")


def test_frontend_arguments(modules: dict[str, Any]) -> None:
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments = vars(modules["cli_args"].make_arg_parser(FlexibleArgumentParser()).parse_args([]))
    for name in (
        "chat_template",
        "tool_call_parser",
        "enable_auto_tool_choice",
        "trust_request_chat_template",
        "enable_prompt_tokens_details",
    ):
        expect(name in arguments, f"`vllm serve` has no --{name.replace('_', '-')}")


def test_engine_arguments() -> None:
    from agent.engines.inprocess import engine_argument_names

    names = engine_argument_names()
    for name in (
        "model",
        "dtype",
        "enforce_eager",
        "kv_cache_memory_bytes",
        "block_size",
        "use_tqdm_on_load",
    ):
        expect(name in names, f"EngineArgs has no {name}")


def test_request_fields(modules: dict[str, Any]) -> None:
    from agent.chat.options import WIRE_NAMES

    fields = modules["protocol"].ChatCompletionRequest.model_fields
    missing = [name for name in [*WIRE_NAMES, "top_logprobs", "prompt_logprobs"] if name not in fields]
    expect(not missing, f"ChatCompletionRequest has no {missing}, and would ignore it in silence")


def test_completion_fields(modules: dict[str, Any]) -> None:
    from agent.chat.sampling import TextSampling

    plain = TextSampling(stop=["x"], best_of=2, seed=1, min_p=0.1, repetition_penalty=1.1, min_tokens=1)
    others = TextSampling(
        stop_token_ids=[1],
        logit_bias={"1": 1.0},
        bad_words=["x"],
        skip_special_tokens=True,
        add_special_tokens=True,
        structured_outputs={"regex": "x"},
        response_format={"type": "text"},
    )
    beams = TextSampling(use_beam_search=True, length_penalty=1.0)
    fields = modules["completion_protocol"].CompletionRequest.model_fields
    sent = {name for sampling in (plain, others, beams) for name in sampling.request("x")}
    missing = sorted(sent - fields.keys())
    expect(not missing, f"CompletionRequest has no {missing}, and would ignore it in silence")
    expect(len(sent) > 20, "the requests of this test are not what VLLM sends")
    texts = modules["tokenize_protocol"].TokenizeCompletionRequest.model_fields
    expect({"prompt", "add_special_tokens"} <= texts.keys(), "TokenizeCompletionRequest has other fields")


def test_a_beam_search_counts_the_end_token_only_where_it_is_kept(modules: dict[str, Any]) -> None:
    source = inspect.getsource(modules["completion_serving"].OpenAIServingCompletion.beam_search)
    for part in ("if include_stop_str_in_output", "stop_reason=eos_token_id", "length_penalty"):
        expect(part in source, f"the beam search has no {part!r} any more, on which agent/chat rests")
    expect("params.stop" not in source, "the beam search knows stop texts now: agent/chat need not cut")


def test_the_serving_layer_has_the_parts_that_we_call(modules: dict[str, Any]) -> None:
    from vllm.entrypoints.generate import api_router

    source = inspect.getsource(modules["app_state"]) + inspect.getsource(api_router)
    for name in ("openai_serving_chat", "openai_serving_completion", "serving_tokenization"):
        expect(f"state.{name} = " in source, f"the state has no {name}")


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_parsers(family: Family) -> None:
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    if family.tool_parser is not None:
        assert ToolParserManager.get_tool_parser(family.tool_parser) is not None
    if family.reasoning_parser is not None:
        assert ReasoningParserManager.get_reasoning_parser(family.reasoning_parser) is not None


def test_a_core_that_shuts_down_ends_the_distributed_state() -> None:
    from vllm.v1.engine import core

    assert callable(core.cleanup_dist_env_and_memory)
    assert "cleanup_dist_env_and_memory()" in inspect.getsource(core.EngineCore.shutdown), (
        "agent/engines/inprocess/core.py keeps a core from ending the others by replacing this call"
    )


def test_the_caches_that_hold_tokenizers_are_caches_of_functions() -> None:
    from agent.engines.inprocess.caches import HOLDING_TOKENIZERS

    for function in HOLDING_TOKENIZERS:
        expect(callable(getattr(function, "cache_clear", None)), f"{function!r} is no cache any more")


def test_what_the_functions_of_a_tokenizer_hold_is_let_go_of() -> None:
    from vllm.utils.func_utils import supports_kw

    from agent.engines.inprocess.caches import forget_tokenizers

    class Pool:
        """In the place of a renderer's tokenizers, which its functions hold as vLLM writes them."""

    def made() -> tuple[weakref.ref[Pool], Any]:
        pool = Pool()
        return weakref.ref(pool), lambda tools: pool

    pool, function = made()
    supports_kw(function, "tools")
    del function
    gc.collect()
    assert pool() is not None, (
        "vLLM's cache does not hold it any more: agent/engines/inprocess/caches.py can go"
    )
    forget_tokenizers()
    gc.collect()
    assert pool() is None
