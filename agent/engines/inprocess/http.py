"""vLLM's own HTTP server, started with the choices of this package.

It is what ``vllm serve`` runs: the same parser of flags, the same routes, the same engine. Three things
differ. What nobody chose is chosen as for the engine in a process of ours (platform, chat template, tool
parser, reasoning parser), and the tool parser is tried on a call before the first request. What was chosen is
written down as an :class:`~agent.engines.base.EngineInfo`, so that clients of ours need not find it out
again. And where one process is to do it all, the engine core runs on a thread: nothing can be orphaned, and
on a CPU it starts in half the time.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.entrypoints.launchers.api_server import entry
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
from vllm.logger import configure_logging_from_args
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.core_client import EngineCoreClient

from agent.catalogue.size import parameters_of
from agent.engines.base import EngineInfo, StageCallback
from agent.engines.config import closest_flags
from agent.engines.inprocess.core import ThreadCoreClient
from agent.engines.inprocess.platform import engine_argument_names, version, with_platform_defaults
from agent.engines.inprocess.protocol import check_parser_names, chosen, own_control_tokens, probed
from agent.errors import ConfigurationError
from agent.formats.serving import PARSER, PLUGIN
from agent.protocols.choice import Choice, Wanted
from agent.protocols.templates import text_template

_LOOK = 0.05
_OWN_PARSERS = ("tool_call_parser", "reasoning_parser", "tool_parser_plugin", "reasoning_parser_plugin")


class _Core(ThreadCoreClient):
    """An engine core that ends with its process: nothing is freed, and what it works on may be finished."""

    def shutdown(self, timeout: float | None = None) -> None:
        """Let requests end for at most ``timeout`` seconds."""
        deadline = time.monotonic() + (timeout or 0.0)
        while not self.resources.engine_dead and self._has_work and time.monotonic() < deadline:
            time.sleep(_LOOK)
        self.resources.engine_dead = True

    @property
    def _has_work(self) -> bool:
        return self._busy or not self._work.empty()


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM is untyped for mypy
    """vLLM's parser, whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        unknown = [word for word in message.split() if word.startswith("-")]
        if message.startswith("unrecognized arguments:") and unknown:
            known = [name for action in self._actions for name in action.option_strings]
            raise ConfigurationError(closest_flags(unknown[0].partition("=")[0], known))
        if message.startswith("unrecognized arguments:"):
            stray = message.partition(":")[2].strip()
            message = f"{stray!r} belongs to no flag; the model stands first: vllm-agent serve MODEL [flags]"
        raise ConfigurationError(message)


def parsed_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse flags of ``vllm serve`` by vLLM's own parser.

    Raises:
        ConfigurationError: One is unknown, or has a value that it cannot have.
    """
    parser = make_arg_parser(_Parser(prog="vllm serve"))
    try:
        namespace = parser.parse_args(list(arguments))
        namespace.model_tag = namespace.model_tag or namespace.model
        validate_parsed_serve_args(namespace)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(str(error).removeprefix("Error: ")) from error
    assert isinstance(namespace, argparse.Namespace)
    return namespace


def known_flags() -> list[dict[str, Any]]:
    """All flags of this vLLM: their names, and what can be checked of their values without it."""
    flags = []
    for action in make_arg_parser(FlexibleArgumentParser())._actions:
        if action.option_strings:
            kind = action.type.__name__ if action.type in (int, float) else None
            choices = [str(each) for each in action.choices] if action.choices is not None else None
            bare = action.nargs in (0, "?") or isinstance(action, argparse.BooleanOptionalAction)
            flags.append({"names": action.option_strings, "bare": bare, "kind": kind, "choices": choices})
    return flags


def serve(
    arguments: Sequence[str],
    *,
    wanted: Mapping[str, Any],
    keys: Sequence[str],
    in_one_process: bool,
    text_tools: bool,
    facts: Path,
    on_stage: StageCallback,
    finish_requests: Callable[[float], None],
) -> None:
    """Run the server until a signal stops it.

    Args:
        arguments: Flags of ``vllm serve``.
        wanted: Parsers that were asked for in our own names; see :class:`~agent.protocols.choice.Wanted`.
        keys: API keys that it asks for; vLLM reads ``VLLM_API_KEY`` too.
        in_one_process: Whether the engine core runs on a thread of this process.
        text_tools: Whether the server itself speaks the text protocol where the model calls tools in no
            format of its own. Clients of ours do so better, and are told that the model has none.
        facts: Where what the server is gets written, before it takes requests.
        on_stage: Called with each stage of the start that vLLM's log does not tell.
        finish_requests: Called when a signal stops the server, to wait for at most so many seconds until the
            requests that it has are answered.

    Raises:
        ConfigurationError: A flag is wrong.
    """
    on_stage("checking flags")
    namespace = parsed_flags(arguments)
    if keys:
        namespace.api_key = list(keys)
    cli_env_setup()
    configure_logging_from_args(namespace)
    _complete_platform(namespace)
    on_stage("loading")
    choice, problem = _complete_protocol(namespace, wanted, text_tools=text_tools)
    note = _Facts(facts, namespace, choice, problem, text_tools=text_tools)

    async def init_app_state(engine: Any, *rest: Any) -> None:
        stop_after_requests(engine, finish_requests)
        await note.init_app_state(engine, *rest)

    with ExitStack() as stack:
        stack.enter_context(patch.object(entry, "init_app_state", init_app_state))
        if in_one_process:

            def make_client(vllm_config: Any, executor_class: Any, log_stats: bool, **_: Any) -> _Core:
                return _Core(vllm_config, executor_class, log_stats, on_stage)

            stack.enter_context(
                patch.object(EngineCoreClient, "make_async_mp_client", staticmethod(make_client))
            )
        ServeSubcommand.cmd(namespace)


def stop_after_requests(engine: Any, finish: Callable[[float], None]) -> None:
    """Have an engine's ``shutdown`` wait for requests that have not come to the engine yet.

    vLLM lets those end that its core works on. It closes before that what makes tokens of a request, so that
    one which had just come ended in an error.
    """
    stop = engine.shutdown

    def shutdown(timeout: float | None = None) -> None:
        # When a signal comes, vLLM calls it on a thread. On the loop's own, nothing would be answered.
        if threading.current_thread() is threading.main_thread():
            stop(timeout=timeout)
            return
        begun = time.monotonic()
        finish(timeout or 0.0)
        stop(timeout=None if timeout is None else max(0.0, timeout - (time.monotonic() - begun)))

    engine.shutdown = shutdown


def _complete_platform(namespace: argparse.Namespace) -> None:
    """Choose for this platform what nobody chose."""
    usual = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    given = {
        name: value
        for name in engine_argument_names()
        if hasattr(namespace, name) and (value := getattr(namespace, name)) != getattr(usual, name, None)
    }
    # Others watch a server by its statistics, and its log is where the progress of loading is read from.
    kept = {"disable_log_stats": namespace.disable_log_stats, "use_tqdm_on_load": namespace.use_tqdm_on_load}
    for name, value in {**with_platform_defaults(given), **kept}.items():
        setattr(namespace, name, value)


def _complete_protocol(
    namespace: argparse.Namespace, wanted: Mapping[str, Any], *, text_tools: bool
) -> tuple[Choice | None, str]:
    """Choose template and parsers, unless the user did so in vLLM's own flags.

    Returns:
        The choice, None where it is the user's; and why the model's own tool format is not used.
    """
    if namespace.headless or any(getattr(namespace, name, None) for name in _OWN_PARSERS):
        return None, ""
    asked = Wanted(**wanted, chat_template=namespace.chat_template)
    check_parser_names(asked)
    config = AsyncEngineArgs.from_cli_args(namespace).create_model_config()
    if config.runner_type != "generate":
        return None, ""
    choice, problem = chosen(config, asked)
    if choice.reasoning_parser:
        namespace.reasoning_parser = choice.reasoning_parser
        namespace.structured_outputs_config.reasoning_parser = choice.reasoning_parser
    tokenizer = None if config.skip_tokenizer_init else cached_tokenizer_from_config(config)
    _use(namespace, choice, tokenizer if text_tools else None)
    return choice, problem


def _use(namespace: argparse.Namespace, choice: Choice, tokenizer: Any) -> None:
    """Put a choice into the flags; with a tokenizer, the text protocol where it has no parser of calls."""
    if choice.replaces:
        namespace.chat_template = choice.chat_template
    namespace.tool_call_parser = choice.tool_parser
    namespace.enable_auto_tool_choice = choice.tool_parser is not None
    # Where vLLM writes the prompts itself, there is no template to put tools into.
    if choice.tool_parser is None and tokenizer is not None and choice.chat_template is not None:
        tokens = own_control_tokens(tokenizer)
        namespace.chat_template = text_template(choice.chat_template, control_tokens=tokens)
        namespace.tool_parser_plugin = str(PLUGIN)
        namespace.tool_call_parser = PARSER
        namespace.enable_auto_tool_choice = True
        namespace.exclude_tools_when_tool_choice_none = True
        ToolParserManager.import_tool_parser(namespace.tool_parser_plugin)


class _Facts:
    """Puts the serving layer on the engine, tries the tool parser, and writes down what the server is."""

    def __init__(
        self,
        path: Path,
        namespace: argparse.Namespace,
        choice: Choice | None,
        problem: str,
        *,
        text_tools: bool,
    ) -> None:
        self._path = path
        self._namespace = namespace
        self._choice = choice
        self._problem = problem
        self._text_tools = text_tools
        self._init = entry.init_app_state

    async def init_app_state(self, engine: Any, state: Any, args: argparse.Namespace, tasks: Any) -> None:
        """Do what vLLM's function of that name does, with a tool parser that works or none."""
        await self._init(engine, state, args, tasks)
        choice, problem = self._choice, self._problem
        serving = state.openai_serving_chat
        if choice is not None and choice.tool_parser is not None and serving is not None:
            used, problem = await probed(serving, choice)
            if used != choice:
                _use(args, used, serving.renderer.tokenizer if self._text_tools else None)
                await self._init(engine, state, args, tasks)
            choice = used
        self._write(engine, args, choice, problem)

    def _write(self, engine: Any, args: argparse.Namespace, choice: Choice | None, problem: str) -> None:
        tokenizer = engine.renderer.tokenizer
        template = choice.chat_template if choice else args.chat_template
        names = args.served_model_name or [args.model]
        info = EngineInfo(
            kind="remote",
            model=names[0] if isinstance(names, list) else names,
            max_model_len=engine.model_config.max_model_len,
            parameters=parameters_of(engine.model_config.model),
            chat_template=template or getattr(tokenizer, "chat_template", None),
            control_tokens=own_control_tokens(tokenizer),
            tool_parser=choice.tool_parser if choice else args.tool_call_parser,
            reasoning_parser=choice.reasoning_parser if choice else args.reasoning_parser,
            family=choice.family if choice else None,
            tool_problem=problem,
            version=version(),
        )
        if not isinstance(info.chat_template, str):
            info = replace(info, chat_template=None)
        whole = self._path.with_suffix(".part")
        whole.write_text(json.dumps(asdict(info)), encoding="utf-8")
        whole.replace(self._path)
