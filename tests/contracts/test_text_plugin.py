"""Our tool parser for vLLM's server, on vLLM's own classes: what it reads, and what it holds calls to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from family_templates import byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from agent.formats.serving.__main__ import PARSER, PLUGIN

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CALL = 'TOOL_CALL: {"name": "get_weather", "arguments": {"city": "Rome"}}'
TOKENIZER = byte_tokenizer()


@pytest.fixture(scope="module")
def kind() -> Any:
    """The parser as `vllm serve` puts it together after it has loaded the plugin's file."""
    from vllm.parser import ParserManager
    from vllm.tool_parsers import ToolParserManager

    ToolParserManager.import_tool_parser(str(PLUGIN))
    return ParserManager.get_parser(tool_parser_name=PARSER, enable_auto_tools=True, tokenizer=TOKENIZER)


def asked(**fields: Any) -> Any:
    from agent.engines.inprocess.probe import request

    return request().model_copy(update=fields)


def whole(kind: Any, text: str, **fields: Any) -> tuple[str, list[tuple[str, str]]]:
    request = asked(**fields)
    _, content, calls = kind(TOKENIZER, request.tools).parse(text, request, enable_auto_tools=True)
    return content or "", [(call.name, call.arguments) for call in calls or ()]


def streamed(kind: Any, pieces: list[str], **fields: Any) -> tuple[str, list[tuple[str, str]]]:
    request = asked(**fields)
    parser = kind(TOKENIZER, request.tools)
    content, calls = "", dict[int, list[str]]()
    for position, piece in enumerate(pieces):
        delta = parser.parse_delta(
            delta_text=piece,
            delta_token_ids=[1],
            request=request,
            prompt_token_ids=[1],
            finished=position == len(pieces) - 1,
        )
        content += (delta and delta.content) or ""
        for call in (delta and delta.tool_calls) or ():
            known = calls.setdefault(call.index, ["", ""])
            known[0] += call.function.name or ""
            known[1] += call.function.arguments or ""
    return content, [(name, arguments) for name, arguments in calls.values()]


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("Hello there.", "Hello there.", []),
        (CALL, "", [("get_weather", '{"city": "Rome"}')]),
        (f"Let me see.\n{CALL}\n{CALL}", "Let me see.", [("get_weather", '{"city": "Rome"}')] * 2),
        ('TOOL_CALL: {"name": "f", "arguments": {"a": ', "", [("f", '{"a": ')]),
        ("TOOL_CALL: {nonsense", "", [("unknown", "{nonsense")]),
        ("We write TOOL", "We write TOOL", []),
    ],
)
def test_answers_are_read(kind: Any, text: str, content: str, calls: list[tuple[str, str]]) -> None:
    assert whole(kind, text) == (content, calls)
    assert streamed(kind, list(text)) == (content, calls)
    assert streamed(kind, [text]) == (content, calls)


@given(
    st.lists(st.sampled_from([CALL, "TOOL_CALL:", "TOOL", "{", "}", '"', "\n", " "]) | st.text(max_size=5))
)
def test_any_answer_reads_the_same_streamed_and_whole(kind: Any, pieces: list[str]) -> None:
    text = "".join(pieces)
    content, calls = whole(kind, text)
    again, same = streamed(kind, [*pieces, ""])
    assert (again.strip(), same) == (content.strip(), calls)


def accepts(structured: Any, text: str) -> bool:
    """Whether xgrammar lets a model write this text, and end there."""
    import xgrammar

    info = xgrammar.TokenizerInfo.from_huggingface(byte_tokenizer(("<end>",)), stop_token_ids=[256])
    compiler = xgrammar.GrammarCompiler(info)
    if structured.structural_tag is not None:
        matcher = xgrammar.GrammarMatcher(compiler.compile_structural_tag(structured.structural_tag))
    else:
        matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(structured.grammar))
    return bool(matcher.accept_string(text)) and bool(matcher.accept_token(256))


def held(kind: Any, **fields: Any) -> Any:
    request = asked(**fields)
    return kind(TOKENIZER, request.tools).adjust_request(request).structured_outputs


def test_auto_holds_a_call_that_has_begun_to_a_bound_tool(kind: Any) -> None:
    grammar = held(kind)
    assert accepts(grammar, "Good morning. What a day!")
    assert accepts(grammar, CALL)
    assert accepts(grammar, f"Let me see.\n{CALL}\n{CALL}\nDone.")
    assert not accepts(grammar, 'TOOL_CALL: {"name": "delete_all", "arguments": {}}')
    assert not accepts(grammar, CALL.replace('"Rome"', "7"))
    assert not accepts(grammar, "TOOL_CALL: maybe")
    single = held(kind, parallel_tool_calls=False)
    assert accepts(single, "Good morning. What a day!")
    assert accepts(single, f"Let me see.\n{CALL}")
    assert not accepts(single, f"{CALL}\n{CALL}")


def test_required_and_named_write_nothing_else(kind: Any) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionNamedToolChoiceParam

    named = ChatCompletionNamedToolChoiceParam.model_validate(
        {"type": "function", "function": {"name": "get_weather"}}
    )
    for choice in ("required", named):
        assert accepts(held(kind, tool_choice=choice), CALL)
        assert not accepts(held(kind, tool_choice=choice), "Good morning.")
    assert accepts(held(kind, tool_choice="required"), f"{CALL}\n{CALL}")
    assert not accepts(held(kind, tool_choice="required", parallel_tool_calls=False), f"{CALL}\n{CALL}")
    assert held(kind, tool_choice="none") is None


def test_structured_output_of_the_caller_stays(kind: Any) -> None:
    from vllm.sampling_params import StructuredOutputsParams

    given = StructuredOutputsParams(regex="x+")
    assert held(kind, structured_outputs=given) is given


def test_the_arguments_of_the_server_name_files_that_are_there(tmp_path: Any, capsys: Any) -> None:
    from agent.formats.serving.__main__ import main

    (tmp_path / "config.json").write_text("{}")
    tokens = {"added_tokens": [{"content": "<|im_end|>", "special": True}, {"content": "word"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokens))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}[END_OF]"}))
    file = tmp_path / "out" / "template.jinja"
    assert main([str(tmp_path), "--template", str(file)]) == 0
    said = capsys.readouterr().out.split()
    assert said[said.index("--chat-template") + 1] == str(file)
    text = file.read_text()
    assert text.startswith('{%- set text_control = ["<|im_end|>", "[END_OF]"] %}')
    assert text.endswith("{{ messages }}[END_OF]")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere")])
    assert "no model directory" in capsys.readouterr().err
