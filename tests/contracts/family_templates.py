"""A chat template for each family of models, written here in that family's format, with its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Format:
    """One family's turns in Jinja, and its tokens."""

    start: str
    """Before a message; ``ROLE`` is its role."""

    end: str
    """After a message."""

    call: str
    """One call, with ``name`` and ``arguments`` (a mapping) set."""

    before: str = ""
    """Before the first call of a message."""

    after: str = ""
    """After the last one."""

    between: str = "\n"
    """Between two calls."""

    extra: str = ""
    """Text that stands in the template beside, in a branch that is never taken."""

    tokens: tuple[str, ...] = ()
    """Special tokens."""

    words: tuple[str, ...] = ()
    """Added tokens that are no special ones."""

    two: bool = True
    """Whether the format knows several calls in one answer."""

    @property
    def template(self) -> str:
        start, end = self.start.replace("ROLE", "' + message.role + '"), self.end
        prompt = self.start.replace("ROLE", "assistant")
        return (
            f"{{%- if false %}}{self.extra}{{%- endif %}}"
            "{%- if tools %}{{- 'Tools: ' + (tools | tojson) }}{%- endif %}"
            "{%- for message in messages %}"
            f"{{{{- '{start}' }}}}"
            "{%- if message.tool_calls %}"
            f"{{{{- (message.content or '') + '{self.before}' }}}}"
            "{%- for call in message.tool_calls %}"
            "{%- set name = call.function.name %}{%- set arguments = call.function.arguments %}"
            f"{self.call}"
            f"{{{{- '{self.between}' if not loop.last }}}}"
            "{%- endfor %}"
            f"{{{{- '{self.after}' }}}}"
            "{%- else %}{{- message.content }}{%- endif %}"
            f"{{{{- '{end}' }}}}"
            "{%- endfor %}"
            f"{{%- if add_generation_prompt %}}{{{{- '{prompt}' }}}}{{%- endif %}}"
        )


JSON_CALL = """{{- '{"name": "' + name + '", "arguments": ' + (arguments | tojson) + '}' }}"""
HERMES_CALL = JSON_CALL.replace("{{- '", "{{- '<tool_call>\\n", 1).replace("'}' }}", "'}\\n</tool_call>' }}")
XML_CALL = (
    "{{- '<tool_call>\\n<function=' + name + '>\\n' }}"
    "{%- for key, value in arguments.items() %}"
    "{{- '<parameter=' + key + '>\\n' + (value if value is string else value | tojson) }}"
    "{{- '\\n</parameter>\\n' }}"
    "{%- endfor %}{{- '</function>\\n</tool_call>' }}"
)
PYTHON_CALL = (
    "{{- name + '(' }}{%- for key, value in arguments.items() %}"
    "{{- key + '=' + (value | tojson) }}{{- ', ' if not loop.last }}{%- endfor %}{{- ')' }}"
)
LLAMA_CALL = JSON_CALL.replace('"arguments"', '"parameters"')
CHATML = {"start": "<|im_start|>ROLE\\n", "end": "<|im_end|>\\n"}
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
DEEPSEEK = {"start": "<｜ROLE｜>", "end": "<｜end▁of▁sentence｜>"}
DEEPSEEK_TOKENS = (
    "<｜user｜>",
    "<｜assistant｜>",
    "<｜end▁of▁sentence｜>",
)
DEEPSEEK_WORDS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
)
DEEPSEEK_CALL = (
    "{{- '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + name + '\\n```json\\n' + (arguments | tojson) "
    "+ '\\n```<｜tool▁call▁end｜>' }}"
)
GRANITE = {"start": "<|start_of_role|>ROLE<|end_of_role|>", "end": "<|end_of_text|>\\n"}
GRANITE_TOKENS = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")
GEMMA_VALUE = '("<escape>" + value + "<escape>")'

FORMATS: dict[str, Format] = {
    "Hermes and Qwen2.5": Format(
        **CHATML, call=HERMES_CALL, tokens=CHATML_TOKENS, words=("<tool_call>", "</tool_call>")
    ),
    "Qwen3": Format(
        **CHATML,
        call=HERMES_CALL,
        before="<think>\\n\\n</think>\\n\\n",
        tokens=CHATML_TOKENS,
        words=("<tool_call>", "</tool_call>", "<think>", "</think>"),
    ),
    "Qwen3-Coder": Format(
        **CHATML, call=XML_CALL, tokens=CHATML_TOKENS, words=("<tool_call>", "</tool_call>")
    ),
    "Qwen3.5": Format(
        **CHATML,
        call=XML_CALL,
        before="<think>\\n\\n</think>\\n\\n",
        tokens=CHATML_TOKENS,
        words=("<tool_call>", "</tool_call>", "<think>", "</think>"),
    ),
    "Mistral": Format(
        start="[INST] ROLE[/INST]",
        end="</s>",
        before="[TOOL_CALLS][",
        call=JSON_CALL.replace("'}' }}", "', \"id\": \"' + call.id + '\"}' }}"),
        between=", ",
        after="]",
        tokens=("[INST]", "[/INST]", "[TOOL_CALLS]", "</s>"),
    ),
    "Magistral": Format(
        start="[INST] ROLE[/INST]",
        end="</s>",
        call="{{- '[TOOL_CALLS]' + name + '[ARGS]' + (arguments | tojson) }}",
        between="",
        extra="[THINK][/THINK]",
        tokens=("[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]", "</s>"),
    ),
    "Llama 3": Format(
        start="<|start_header_id|>ROLE<|end_header_id|>\\n\\n",
        end="<|eot_id|>",
        call=LLAMA_CALL,
        between="; ",
        extra='{"name": function name, "parameters": dictionary}',
        tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"),
    ),
    "Llama 4": Format(
        start="<|header_start|>ROLE<|header_end|>\\n\\n",
        end="<|eot|>",
        call=LLAMA_CALL,
        between="; ",
        tokens=("<|header_start|>", "<|header_end|>", "<|eot|>", "<|python_tag|>"),
    ),
    "Llama 4, calls as Python": Format(
        start="<|header_start|>ROLE<|header_end|>\\n\\n",
        end="<|eot|>",
        before="[",
        call=PYTHON_CALL,
        between=", ",
        after="]",
        extra="[func_name(parameter=value)]",
        tokens=("<|header_start|>", "<|header_end|>", "<|eot|>", "<|python_start|>", "<|python_end|>"),
    ),
    "Granite 3": Format(
        **GRANITE,
        before="<|tool_call|>[",
        call=JSON_CALL,
        between=", ",
        after="]",
        tokens=(*GRANITE_TOKENS, "<|tool_call|>"),
    ),
    "Granite 4": Format(**GRANITE, call=HERMES_CALL, tokens=(*GRANITE_TOKENS, "<tool_call>", "</tool_call>")),
    "DeepSeek V3": Format(
        **DEEPSEEK,
        before="<｜tool▁calls▁begin｜>",
        call=DEEPSEEK_CALL,
        after="<｜tool▁calls▁end｜>",
        tokens=DEEPSEEK_TOKENS,
        words=DEEPSEEK_WORDS,
    ),
    "DeepSeek R1": Format(
        **DEEPSEEK,
        before="<｜tool▁calls▁begin｜>",
        call=DEEPSEEK_CALL,
        after="<｜tool▁calls▁end｜>",
        extra="<think>",
        tokens=DEEPSEEK_TOKENS,
        words=(*DEEPSEEK_WORDS, "<think>", "</think>"),
    ),
    "DeepSeek V3.1": Format(
        **DEEPSEEK,
        before="<｜tool▁calls▁begin｜>",
        call=(
            "{{- '<｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' + (arguments | tojson) }}"
            "{{- '<｜tool▁call▁end｜>' }}"
        ),
        between="",
        after="<｜tool▁calls▁end｜>",
        tokens=DEEPSEEK_TOKENS,
        words=(*DEEPSEEK_WORDS, "<think>", "</think>"),
    ),
    "DeepSeek V3.2": Format(
        **DEEPSEEK,
        before="<｜DSML｜function_calls>\\n",
        call=(
            "{{- '<｜DSML｜invoke name=\"' + name + '\">\\n' }}{%- for key, value in arguments.items() %}"
            "{{- '<｜DSML｜parameter name=\"' + key + '\" string=\"true\">' }}"
            "{{- value + '</｜DSML｜parameter>\\n' }}"
            "{%- endfor %}{{- '</｜DSML｜invoke>' }}"
        ),
        after="\\n</｜DSML｜function_calls>",
        tokens=("<｜user｜>", "<｜assistant｜>", "<｜end▁of▁sentence｜>"),
        words=("<think>", "</think>", "｜DSML｜"),
    ),
    "FunctionGemma": Format(
        start="<start_of_turn>ROLE\\n",
        end="<end_of_turn>\\n",
        call=(
            "{{- '<start_function_call>call:' + name + '{' }}{%- for key, value in arguments.items() %}"
            f"{{{{- key + ':' + {GEMMA_VALUE} }}}}{{{{- ',' if not loop.last }}}}{{%- endfor %}}"
            "{{- '}<end_function_call>' }}"
        ),
        between="",
        tokens=(
            "<start_of_turn>",
            "<end_of_turn>",
            "<start_function_call>",
            "<end_function_call>",
            "<escape>",
        ),
    ),
    "Gemma 4": Format(
        start="<|turn>ROLE\\n",
        end="<turn|>\\n",
        call=(
            "{{- '<|tool_call>call:' + name + '{' }}{%- for key, value in arguments.items() %}"
            "{{- key + ':<|\"|>' + value + '<|\"|>' }}{{- ',' if not loop.last }}{%- endfor %}"
            "{{- '}<tool_call|>' }}"
        ),
        between="",
        tokens=("<|turn>", "<turn|>", "<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>"),
    ),
    "GLM 4.5 to 4.7": Format(
        start="<|ROLE|>\\n",
        end="",
        call=(
            "{{- '<tool_call>' + name + '\\n' }}{%- for key, value in arguments.items() %}"
            "{{- '<arg_key>' + key + '</arg_key>\\n<arg_value>' + value + '</arg_value>\\n' }}"
            "{%- endfor %}{{- '</tool_call>' }}"
        ),
        tokens=("<|user|>", "<|assistant|>", "<|system|>", "<|observation|>"),
        words=(
            *("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
            *("<think>", "</think>"),
        ),
    ),
    "MiniMax M2": Format(
        start="]~b]ROLE\\n",
        end="[e~[\\n",
        before="<minimax:tool_call>\\n",
        call=(
            "{{- '<invoke name=\"' + name + '\">\\n' }}{%- for key, value in arguments.items() %}"
            "{{- '<parameter name=\"' + key + '\">' + value + '</parameter>\\n' }}"
            "{%- endfor %}{{- '</invoke>' }}"
        ),
        after="\\n</minimax:tool_call>",
        tokens=("]~b]", "[e~["),
        words=("<minimax:tool_call>", "</minimax:tool_call>", "<think>", "</think>"),
    ),
    "Seed-OSS": Format(
        start="<seed:bos>ROLE\\n",
        end="<seed:eos>",
        call=XML_CALL.replace("tool_call>", "seed:tool_call>"),
        tokens=("<seed:bos>", "<seed:eos>"),
        words=("<seed:tool_call>", "</seed:tool_call>", "<seed:think>", "</seed:think>"),
    ),
    "Kimi K2": Format(
        start="<|im_ROLE|>",
        end="<|im_end|>",
        before="<|tool_calls_section_begin|>",
        call=(
            "{{- '<|tool_call_begin|>functions.' + name + ':' + loop.index0 | string "
            "+ '<|tool_call_argument_begin|>' + (arguments | tojson) + '<|tool_call_end|>' }}"
        ),
        between="",
        after="<|tool_calls_section_end|>",
        tokens=(
            *("<|im_user|>", "<|im_assistant|>", "<|im_end|>"),
            *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
            *("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
        ),
        words=("<think>", "</think>"),
    ),
    "LFM2": Format(
        **CHATML,
        before="<|tool_call_start|>[",
        call=PYTHON_CALL,
        between=", ",
        after="]<|tool_call_end|>",
        tokens=(*CHATML_TOKENS, "<|tool_call_start|>", "<|tool_call_end|>"),
    ),
    "OLMo 3": Format(
        **CHATML,
        before="<function_calls>",
        call=PYTHON_CALL,
        after="</function_calls>",
        extra="<functions></functions>",
        tokens=CHATML_TOKENS,
    ),
    "InternLM 2": Format(
        **CHATML,
        before="<|action_start|><|plugin|>\\n",
        call=LLAMA_CALL,
        after="<|action_end|>",
        tokens=(*CHATML_TOKENS, "<|action_start|>", "<|action_end|>", "<|plugin|>"),
        two=False,
    ),
    "Phi-4-mini": Format(
        start="<|ROLE|>",
        end="<|end|>",
        call="{{- '' }}",  # its own template writes no calls; ours does
        extra="<|tool|>",
        tokens=("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|tool|>", "<|/tool|>"),
    ),
}


def byte_tokenizer(
    tokens: tuple[str, ...] = (), words: tuple[str, ...] = (), **options: str
) -> PreTrainedTokenizerFast:
    """Build a tokenizer of the 256 bytes, with these special tokens and added tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **options)
