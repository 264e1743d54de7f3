"""Each family's calls, in the form that its template teaches, are read by the parser of vLLM that we name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from family_templates import FORMATS, byte_tokenizer

from agent.errors import ConfigurationError
from agent.protocols.choice import Known, Wanted, choose
from agent.protocols.families import Family, families, family_of, tool_parser_for
from agent.protocols.templates import template

BY_NAME = {family.name: family for family in families()}


def chosen(name: str) -> tuple[Family, str]:
    """Return the family that the template of this name is taken for, and the template to use with it."""
    own = FORMATS[name].template
    family = family_of(own)
    assert family is not None, f"the template of {name} is not recognised"
    return family, template(family.template) if family.template else own


@cache
def tokenizer(name: str) -> Any:
    made = byte_tokenizer(FORMATS[name].tokens, FORMATS[name].words)
    made.chat_template = chosen(name)[1]
    return made


async def rendered(name: str, request: Any) -> Sequence[int]:
    body = request.model_dump(exclude_none=True)
    for message in body["messages"]:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return tokenizer(name).apply_chat_template(
        body["messages"],
        tools=body["tools"],
        add_generation_prompt=body["add_generation_prompt"],
        return_dict=False,
    )


def parser_class(name: str, tool_parser: str | None) -> Any:
    from vllm.parser import ParserManager

    return ParserManager.get_parser(
        tool_parser_name=tool_parser, enable_auto_tools=True, tokenizer=tokenizer(name)
    )


@pytest.mark.parametrize("name", FORMATS)
def test_the_template_tells_the_family(name: str) -> None:
    family, used = chosen(name)
    assert family.name == name
    assert tool_parser_for(family, used) == BY_NAME[name].tool_parser


@pytest.mark.parametrize("name", FORMATS)
def test_the_parser_reads_what_the_template_writes(name: str) -> None:
    from agent.engines.inprocess.probe import read_back, written_call

    prompt, call = asyncio.run(written_call(lambda request: rendered(name, request)))
    kind = parser_class(name, BY_NAME[name].tool_parser)
    assert read_back(kind, tokenizer(name), prompt, call) is None


@pytest.mark.parametrize("name", FORMATS)
def test_the_parser_reads_it_streamed(name: str) -> None:
    from agent.engines.inprocess.buffered import buffered
    from agent.engines.inprocess.probe import read_streamed, written_call

    prompt, call = asyncio.run(written_call(lambda request: rendered(name, request)))
    parser = BY_NAME[name].tool_parser
    assert parser is not None
    as_it_is = read_streamed(parser_class(name, parser), tokenizer(name), prompt, call)
    # Where this fails for a family that is not listed here, its calls come with the end of the stream.
    assert as_it_is == (name != "Phi-4-mini")
    assert read_streamed(parser_class(name, buffered(parser)), tokenizer(name), prompt, call)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("Hermes and Qwen2.5", "granite-20b-fc"),
        ("Qwen3-Coder", "hermes"),
        ("Mistral", "llama4_pythonic"),
        ("Phi-4-mini", "hermes"),
        ("Gemma 4", "functiongemma"),
        ("Llama 3", "pythonic"),
    ],
)
def test_a_wrong_parser_does_not_read_it(name: str, wrong: str) -> None:
    from agent.engines.inprocess.probe import read_back, written_call

    prompt, call = asyncio.run(written_call(lambda request: rendered(name, request)))
    assert read_back(parser_class(name, wrong), tokenizer(name), prompt, call)


def test_deepseek_v4_which_has_no_template() -> None:
    from vllm.parser import ParserManager

    from agent.engines.inprocess.probe import read_back, read_streamed

    form = FORMATS["DeepSeek V3.2"]
    made = byte_tokenizer(form.tokens, form.words)
    text = (
        '</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_weather">\n'
        '<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n'
        "</｜DSML｜invoke>\n</｜DSML｜tool_calls>"
    )
    call = made.encode(text, add_special_tokens=False)
    kind = ParserManager.get_parser(
        tool_parser_name=BY_NAME["DeepSeek V4"].tool_parser, enable_auto_tools=True, tokenizer=made
    )
    assert read_back(kind, made, [], call) is None
    assert read_streamed(kind, made, [], call)


def test_every_family_that_calls_tools_is_tested() -> None:
    # There is no template of DeepSeek V4: vLLM writes its prompts. gpt-oss's parser loads its vocabulary from
    # the network, so only the choice is tested.
    without = {"DeepSeek V4", "gpt-oss"}
    assert {name for name, family in BY_NAME.items() if family.tool_parser} == {*FORMATS, *without}


@pytest.mark.parametrize(
    ("text", "family", "tools", "reasoning"),
    [
        ("<|channel|>analysis<|message|> {{ tools }}", "gpt-oss", "openai", "openai_gptoss"),
        ("<｜User｜><｜Assistant｜><think>", "DeepSeek R1, distilled", None, "deepseek_r1"),
        ("<start_of_turn>user", None, None, None),  # Gemma 3 was taught no calls
        ("[INST] {{ message }} [/INST]", None, None, None),  # Mistral before its calls
        ("<|im_start|>", None, None, None),
        # Llama 3.1 fine-tuned by Hermes, whose calls it was taught
        ('<|start_header_id|> "parameters" <tool_call> {{ tools }}', "Hermes and Qwen2.5", "hermes", None),
        ("<|im_start|> <tool_call>", "Hermes and Qwen2.5", None, None),  # shows no tools
    ],
)
def test_other_templates(text: str, family: str | None, tools: str | None, reasoning: str | None) -> None:
    choice = choose(Known(chat_template=text), Wanted())
    assert (choice.family, choice.tool_parser, choice.reasoning_parser) == (family, tools, reasoning)
    assert choice.chat_template == text


def test_the_model_type_tells_where_the_template_does_not() -> None:
    quiet = "{{ tools }}{{ messages }}"
    assert choose(Known(chat_template=quiet, model_types=("granite",)), Wanted()).tool_parser == "granite"
    assert (
        choose(Known(chat_template="{{ messages }}", model_types=("granite",)), Wanted()).tool_parser is None
    )
    assert choose(Known(model_types=("granite",)), Wanted()).tool_parser is None
    written = choose(Known(model_types=("deepseek_v4",)), Wanted())
    assert (written.tool_parser, written.chat_template) == ("deepseek_v4", None)
    mistral = choose(Known(model_types=("mistral",), writes_prompts=True), Wanted())
    assert (mistral.tool_parser, mistral.chat_template) == ("mistral", None)


def test_a_model_without_a_template_gets_the_instruction_form() -> None:
    choice = choose(Known(), Wanted())
    assert choice.chat_template == template("instruct")
    assert choice.replaces
    assert (choice.tool_parser, choice.family) == (None, None)


def test_the_caller_has_the_last_word(tmp_path: Path) -> None:
    hermes = FORMATS["Hermes and Qwen2.5"].template
    wanted = Wanted(tool_parser="xlam", reasoning_parser="qwen3")
    choice = choose(Known(chat_template=hermes), wanted)
    assert (choice.tool_parser, choice.reasoning_parser) == ("xlam", "qwen3")
    choice = choose(
        Known(chat_template=FORMATS["Qwen3"].template), Wanted(tool_parser=None, reasoning_parser=None)
    )
    assert (choice.tool_parser, choice.reasoning_parser, choice.replaces) == (None, None, False)
    file = tmp_path / "template.jinja"
    file.write_text(hermes)
    choice = choose(Known(chat_template="{{ messages }}"), Wanted(chat_template=str(file)))
    assert (choice.chat_template, choice.replaces, choice.tool_parser) == (hermes, True, "hermes")
    with pytest.raises(ConfigurationError, match=r"nowhere\.jinja.*neither a Jinja template nor a file"):
        choose(Known(), Wanted(chat_template="nowhere.jinja"))
