"""Control text: what a tokenizer makes control tokens of, and how it stays ordinary text.

A chat template writes control tokens as text (``<|im_start|>``), and the tokenizer that then reads the whole
prompt cannot tell those of the template from the same characters in a document or a tool's result. So they
are broken there by a character without width, U+2060 WORD JOINER, behind their first one: what a person sees
stays as it was, and no token of the model's vocabulary for control fits any more. Text without such
characters is left alone. (U+200B would be the better known choice, but normalizers of some tokenizers turn it
into a blank, and the word joiner they leave as it is.)
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import Any

BREAK = "\u2060"
"""What breaks a control text."""

WELL_KNOWN = (
    *("<s>", "</s>", "<pad>", "<unk>", "<bos>", "<eos>", "<mask>", "<|endoftext|>", "<|begin_of_text|>"),
    *(
        "<|end_of_text|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|im_sep|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|python_tag|>",
    ),
    *("<|start_header_id|>", "<|end_header_id|>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<|eom|>"),
    *("<|python_start|>", "<|python_end|>", "<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>"),
    *("<start_function_call>", "<end_function_call>", "<start_function_response>", "<end_function_response>"),
    *("<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|channel>", "<channel|>"),
    *("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"),
    *("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[ARGS]", "[CALL_ID]", "[TOOL_CONTENT]"),
    *("[THINK]", "[/THINK]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|/tool|>", "<|tool_call|>", "<|/tool_call|>"),
    *("<|tool_response|>", "<|observation|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call_start|>"),
    *("<|tool_call_end|>", "<|tool_list_start|>", "<|tool_list_end|>", "<|action_start|>", "<|action_end|>"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
    *("<tools>", "</tools>", "<functions>", "</functions>"),
    *(
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜tool▁calls▁begin｜>",
    ),
    *("<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "｜DSML｜"),
    *(
        "<｜tool▁outputs▁begin｜>",
        "<｜tool▁outputs▁end｜>",
        "<｜tool▁output▁begin｜>",
        "<｜tool▁output▁end｜>",
    ),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|object_ref_start|>"),
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|repo_name|>", "<|file_sep|>", "<|image|>"),
)
"""Control tokens of the families that people run, for a server that does not tell its own."""

# How control tokens look. With it they are told from ordinary words that a tokenizer was extended by, and
# found in a template whose model writes them with ordinary tokens (Llama 2's "[INST]"). Well-known ones that
# look like something else («<s>» is HTML, too) are named by themselves.
_SHAPES = (
    r"<\|[^|<>\s]{1,40}\|?>",  # <|im_start|>, <|turn>
    r"<[^|<>\s]{1,40}\|>",  # <turn|>
    r"</?｜[^<>\s]{1,40}>",  # <｜User｜>
    r"\[/?[A-Z][A-Z_]{2,30}\]",  # [INST], [/TOOL_RESULTS]
    r"<</?SYS>>",
    r"</?[a-z]+(?:[_:][a-z]+)+>",  # <tool_call>, <start_of_turn>, <minimax:tool_call>
)
_REGULAR = re.compile("|".join(_SHAPES))
_SHAPE = re.compile(
    "|".join([*_SHAPES, *(re.escape(text) for text in WELL_KNOWN if not _REGULAR.fullmatch(text))])
)

_MEDIA = frozenset({"image_url", "input_audio", "audio_url", "video_url", "image", "audio", "video", "file"})


def looks_like_control(text: str) -> bool:
    """Whether a text has the shape of a control token."""
    return _SHAPE.fullmatch(text) is not None


def control_texts_of(chat_template: str | None) -> set[str]:
    """Return the texts in a chat template that have the shape of control tokens."""
    return set(_SHAPE.findall(chat_template or ""))


class ControlText:
    """Knows the control texts of one model, and breaks them where they stand in content.

    Args:
        tokens: Texts that the tokenizer makes control tokens of.
        chat_template: The model's template, whose own marks count as well.
    """

    def __init__(self, tokens: Iterable[str], chat_template: str | None = None) -> None:
        known = {*tokens, *control_texts_of(chat_template)}
        both = {form.strip() for text in known for form in (text, _folded(text))}
        self._texts = frozenset(text for text in both if len(text) > 1)
        # One character each, so that texts which overlap are all found, and the quick search for it is used.
        ends: dict[str, list[str]] = {}
        for text in sorted(self._texts):
            ends.setdefault(text[0], []).append(re.escape(text[1:]))
        self._found = re.compile("|".join(f"{re.escape(c)}(?={'|'.join(rest)})" for c, rest in ends.items()))

    def plain(self, text: str) -> str:
        """Return the text with every control text in it broken."""
        if not self._texts or not self._may_stand_in(text):
            return text
        folded, places = _folded(text), None
        if len(folded) != len(text):  # some character stands for several: keep count of them
            places = [place for place, character in enumerate(text) for _ in _folded(character)]
        breaks = {
            places[match.start()] if places else match.start() for match in self._found.finditer(folded)
        }
        if not breaks:
            return text
        return "".join(
            f"{character}{BREAK}" if i in breaks else character for i, character in enumerate(text)
        )

    def _may_stand_in(self, text: str) -> bool:
        """Look quickly, for most texts have none."""
        if self._found.search(text):
            return True
        return not text.isascii() and bool(self._found.search(unicodedata.normalize("NFKC", text)))

    def plain_request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a chat request in whose content no text can become a control token."""
        plain = dict(request)
        if not self._texts:  # what a whole conversation would be walked for
            return plain
        plain["messages"] = [self._message(message) for message in request["messages"]]
        for name in ("tools", "documents", "chat_template_kwargs"):
            if request.get(name):
                plain[name] = self._deep(request[name])
        return plain

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        calls = message.get("tool_calls")
        apart = ("content", "tool_calls") if isinstance(calls, list) else ("content",)
        plain = {name: self._deep(value) for name, value in message.items() if name not in apart}
        if "content" in message:
            content = message["content"]
            plain["content"] = self._blocks(content) if isinstance(content, list) else self._deep(content)
        if isinstance(calls, list):
            plain["tool_calls"] = [self._call(call) for call in calls]
        return plain

    def _blocks(self, blocks: list[Any]) -> list[Any]:
        """Leave images and sounds alone, and keep texts apart that a template might write side by side."""
        blocks = [
            block if isinstance(block, Mapping) and block.get("type") in _MEDIA else self._deep(block)
            for block in blocks
        ]
        texts = [i for i, block in enumerate(blocks) if isinstance(block, dict) and "text" in block]
        for i in texts[:-1]:
            if self._begins_one(blocks[i]["text"]):
                blocks[i] = {**blocks[i], "text": f"{blocks[i]['text']}{BREAK}"}
        return blocks

    def _begins_one(self, text: Any) -> bool:
        folded = _folded(text) if isinstance(text, str) else ""
        return any(folded.endswith(known[:n]) for known in self._texts for n in range(1, len(known)))

    def _call(self, call: Mapping[str, Any]) -> Any:
        plain = self._deep(call)
        arguments = (call.get("function") or {}).get("arguments")
        if isinstance(arguments, str):  # templates read this JSON, whose escapes may spell anything
            plain["function"]["arguments"] = self._arguments(arguments)
        return plain

    def _arguments(self, text: str) -> str:
        if "\\" not in text and text.isascii() and self.plain(text) == text:
            return text  # without escapes, what its strings hold stands in it as it is
        try:
            value = json.loads(text)
        except ValueError:
            return self.plain(text)
        plain = self._deep(value)
        return text if plain == value else json.dumps(plain, ensure_ascii=False)

    def _deep(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.plain(value)
        if isinstance(value, Mapping):
            return {
                self.plain(name) if isinstance(name, str) else name: self._deep(part)
                for name, part in value.items()
            }
        return [self._deep(part) for part in value] if isinstance(value, list | tuple) else value


def _folded(text: str) -> str:
    """Return the text as the normalizer of a tokenizer may see it, character by character."""
    if text.isascii():
        return text
    return "".join(unicodedata.normalize("NFKC", character) for character in text)


def control_tokens(special: Collection[str], added: Collection[str]) -> tuple[str, ...]:
    """Return the texts that a tokenizer makes control tokens of, longest first.

    Args:
        special: Its special tokens.
        added: All texts that it was extended by; ordinary words among them are none.
    """
    found = {*special, *(text for text in added if looks_like_control(text))}
    return tuple(sorted((text for text in found if text.strip()), key=lambda text: (-len(text), text)))
