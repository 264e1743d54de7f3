"""What vLLM's parsers are asked first: whether they exist, fit the tokenizer, and read the model's calls."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager
from vllm.reasoning import ReasoningParserManager
from vllm.renderers.hf import resolve_chat_template
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.tool_parsers import ToolParserManager

from agent.engines.base import Explained
from agent.engines.inprocess.buffered import buffered
from agent.engines.inprocess.probe import read_back, read_streamed, written_call
from agent.errors import ConfigurationError
from agent.protocols.choice import Choice, Known, Wanted, choose
from agent.protocols.control import control_tokens

logger = logging.getLogger(__name__)

_HF_MODES = ("auto", "hf", "slow")


def check_parser_names(wanted: Wanted) -> None:
    """Refuse names of parsers that the installed vLLM does not have.

    Raises:
        ConfigurationError: Names the parser and the closest known ones.
    """
    for argument, name, manager in (
        ("tool_parser", wanted.tool_parser, ToolParserManager),
        ("reasoning_parser", wanted.reasoning_parser, ReasoningParserManager),
    ):
        known = sorted(manager.list_registered())
        if name not in (None, "auto", *known):
            close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
            msg = f"vLLM has no {argument} {name!r}; did you mean {' or '.join(close or known)}?"
            raise ConfigurationError(msg)


def chosen(model_config: Any, wanted: Wanted) -> tuple[Choice, str]:
    """Choose template and parsers for a model that is about to be loaded, and say what does not fit.

    A parser that cannot work with the model's tokenizer is left out.

    Args:
        model_config: Of vLLM.
        wanted: What the caller wants.
    """
    tokenizer = None if model_config.skip_tokenizer_init else cached_tokenizer_from_config(model_config)
    choice = choose(_known(model_config, tokenizer), wanted)
    if model_config.runner_type == "pooling":  # no turns to write and no calls to read
        given = choice.chat_template if wanted.chat_template is not None else None
        return replace(
            choice,
            chat_template=given,
            replaces=given is not None,
            tool_parser=None,
            reasoning_parser=None,
            family=None,
        ), ""
    if tokenizer is None:
        return replace(choice, tool_parser=None), ""
    problem = ""
    if choice.reasoning_parser and (why := _misfit(tokenizer, reasoning_parser_name=choice.reasoning_parser)):
        if wanted.reasoning_parser != "auto":
            raise ConfigurationError(f"reasoning_parser={choice.reasoning_parser!r} does not fit: {why}")
        logger.warning("thinking is left in the answers: %s", why)
        choice = replace(choice, reasoning_parser=None)
    if choice.tool_parser and (why := _misfit(tokenizer, tool_parser_name=choice.tool_parser)):
        problem = f"vLLM's tool parser {choice.tool_parser!r} does not fit its tokenizer: {why}"
        choice = replace(choice, tool_parser=None)
    return choice, problem


def own_control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Return the texts that a tokenizer turns into single control tokens, longest first."""
    special = set(getattr(tokenizer, "all_special_tokens", ()))
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special.update(str(token) for token in added if getattr(token, "special", False))
    return control_tokens(special, {str(token) for token in added})


async def probed(serving: Any, choice: Choice) -> tuple[Choice, str]:
    """Return the choice as it works, and why its tool parser was left out; empty where it was not.

    A parser that does not read what the template writes is left out; one that does not read it streamed is
    made to wait for the end of an answer.

    Args:
        serving: vLLM's serving layer for chat, started with the choice.
        choice: With a tool parser.
    """

    async def render(request: ChatCompletionRequest) -> list[int]:
        rendered = await serving.online_renderer.render_chat(request)
        if not isinstance(rendered, tuple):
            raise ValueError(rendered.error.message)
        return list(rendered[1][0]["prompt_token_ids"])

    name, model, tokenizer = choice.tool_parser, serving.model_config, serving.renderer.tokenizer
    without = replace(choice, tool_parser=None)
    try:
        prompt, call = await written_call(render)
    except Exception as error:  # templates raise what they like
        return without, f"its chat template cannot write a conversation with a tool call: {error}"
    if not call:
        return without, "its chat template leaves tool calls out of the conversation"
    kind = ParserManager.get_parser(
        tool_parser_name=name,
        enable_auto_tools=True,
        is_harmony=model.hf_config.model_type == "gpt_oss",
        tokenizer=tokenizer,
    )
    try:
        found = read_back(kind, tokenizer, prompt, call, model_config=model)
    except Exception as error:  # a parser that stumbles here would stumble over the model's calls
        found = f"it fails on its call with {type(error).__name__}: {error}"
    if found:
        return without, f"vLLM's tool parser {name!r} does not read its calls; {found}"
    try:
        streamed = read_streamed(kind, tokenizer, prompt, call, model_config=model)
    except Exception:  # the same: it is made to wait
        streamed = False
    return (choice if streamed else replace(choice, tool_parser=buffered(str(name)))), ""


def explained(serving: Any, request: ChatCompletionRequest, token_ids: Sequence[int]) -> Explained:
    """Say what a request comes to: the prompt as text, and what its answer is held to.

    Args:
        serving: vLLM's serving layer for chat.
        request: The request; its parser may change it, as it does before each call.
        token_ids: Its prompt.
    """
    tokenizer = serving.renderer.tokenizer
    if serving.parser_cls is not None:
        parser = serving._make_parser(request, tokenizer, serving._effective_chat_template_kwargs(request))
        request = parser.adjust_request(request)
    held = request.extract_structured_outputs()
    grammar = None
    if held is not None:
        kinds = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
        by = {kind: value for kind in kinds if (value := getattr(held, kind, None)) is not None}
        grammar = by["grammar"] if set(by) == {"grammar"} else json.dumps(by, ensure_ascii=False)
    return Explained(tokenizer.decode(token_ids), tuple(token_ids), grammar)


def _known(model_config: Any, tokenizer: Any) -> Known:
    config = model_config.hf_config
    text = getattr(config, "text_config", None)
    types = [getattr(one, "model_type", None) for one in (config, text) if one is not None]
    writes_prompts = model_config.tokenizer_mode not in _HF_MODES
    template = _template_text(getattr(tokenizer, "chat_template", None))
    if template is None and tokenizer is not None and not writes_prompts:
        # Its processor may have one, or vLLM itself.
        template = resolve_chat_template(tokenizer, None, None, model_config=model_config)
    return Known(
        chat_template=template,
        model_types=tuple(kind for kind in types if isinstance(kind, str)),
        writes_prompts=writes_prompts,
    )


def _template_text(template: Any) -> str | None:
    """Return the one of a tokenizer's chat templates that is taken where there are tools."""
    if isinstance(template, dict):
        template = template.get("tool_use") or template.get("default")
    return template if isinstance(template, str) else None


def _misfit(tokenizer: Any, **names: str) -> str:
    try:
        ParserManager.get_parser(**names, enable_auto_tools=True, tokenizer=tokenizer)
    except TypeError as error:
        return str(error)
    return ""
