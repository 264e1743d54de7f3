"""What a model's ``config.json`` says about its size: a record, or an error that names what is missing.

Configurations differ in names and in nesting; everything behind this module sees one form. A layer kind that
is not known here is refused: a guess would look like a fact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import FitError

Config = Mapping[str, Any]

ATTENTION, SLIDING, CHUNKED, LINEAR, MAMBA = "attention", "sliding", "chunked", "linear", "mamba"
_LAYER_NAMES = {
    "full_attention": ATTENTION,
    "attention": ATTENTION,
    "sliding_attention": SLIDING,
    "chunked_attention": CHUNKED,
    "linear_attention": LINEAR,
    "mamba": MAMBA,
}
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "nomic_bert", "new", "electra")
_MOST_LAYERS = 10_000
_RESERVED_POSITIONS = ("roberta", "xlm-roberta")  # two positions are padding: 514 hold 512 tokens
# Kinds of layers that have their own arithmetic nowhere in this package.
_UNKNOWN_MARKS = (
    "hybrid_override_pattern",
    "block_configs",
    "attn_layer_indices",
    "attn_layer_period",
    "linear_attn_config",
    "index_topk",
    "layers_block_type",
    "ssm_cfg",
    "rwkv_version",
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a model's language part."""

    architecture: str
    """The class that vLLM looks up, such as ``Qwen3ForCausalLM``."""
    model_type: str
    """The name of the configuration class."""
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    kinds: tuple[str, ...]
    """The kind of each layer."""
    window: int
    """Tokens that sliding or chunked layers look back; 0 where there are none."""
    context: int
    """``max_model_len`` where nobody chooses one."""
    limit: int
    """The largest ``max_model_len`` that vLLM takes."""
    positions: int
    """Positions that the rotary table holds."""
    tied: bool
    """Whether the input embedding is the output one too."""
    dtype: str
    """The type that the checkpoint is stored in."""
    encoder_only: bool
    """Whether there is no cache at all (BERT and its kin)."""
    text: Config
    """The language part's own configuration."""
    config: Config
    """The whole configuration."""

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.kinds)

    @property
    def mla(self) -> bool:
        """Whether attention keeps one latent vector per token."""
        return bool(self.text.get("kv_lora_rank"))

    @property
    def stateful(self) -> bool:
        """Whether some layers keep a state in the place of keys and values."""
        return LINEAR in self.kinds or MAMBA in self.kinds

    @property
    def multimodal(self) -> bool:
        """Whether there is an encoder of images or sound beside the language part."""
        return any(name in self.config for name in _TOWERS)

    def size(self, name: str, default: int | None = None) -> int:
        """A number of the language part's configuration.

        Raises:
            FitError: It is missing and there is no default, or it is no whole number, or less than zero.
        """
        value = self.text.get(name)
        if value is None and default is not None:
            return default
        return _number(name, value)


_TOWERS = ("vision_config", "audio_config", "vision_tower", "img_processor", "vision_encoder", "embd_layer")


def read_shape(config: Config) -> Shape:
    """Read the sizes out of a configuration.

    Raises:
        FitError: A key is missing or odd, or the model has layers that are not known here.
    """
    text = text_part(config)
    architecture = _architecture(config)
    _refuse_unknown_layers(text, architecture)
    model_type = str(text.get("model_type") or config.get("model_type") or "")
    heads = _first(text, "num_attention_heads", "n_head", "n_heads", "decoder_attention_heads")
    hidden = _first(text, "hidden_size", "n_embd", "dim", "d_model")
    count = _first(text, "num_hidden_layers", "n_layer", "n_layers", "decoder_layers")
    if count > _MOST_LAYERS:
        raise FitError(f"config.json has {count} layers, and no model has so many")
    kinds, window = _layer_kinds(text, model_type, count)
    encoder_only = model_type in _ENCODERS or text.get("is_causal") is False
    limit = _limit(text, model_type)
    return Shape(
        architecture=architecture,
        model_type=model_type,
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(text, heads),
        head_dim=_optional(text, "head_dim", "attention_head_dim") or hidden // heads,
        intermediate=_intermediate(text, hidden),
        vocab=_first(text, "vocab_size"),
        kinds=kinds,
        window=window,
        context=_original_context(text) or limit,
        limit=limit,
        positions=_optional(text, "max_position_embeddings", "n_positions", "n_ctx") or 0,
        tied=_tied(config, text, model_type),
        dtype=_dtype(config, text),
        encoder_only=encoder_only,
        text=text,
        config=config,
    )


def text_part(config: Config) -> Config:
    """The language part of a nested configuration, or the configuration itself."""
    for name in _TEXT_PARTS:
        part = config.get(name)
        if isinstance(part, Mapping):
            return text_part(part) if name == "thinker_config" else part
    return config


def _architecture(config: Config) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise FitError("config.json has no `architectures`: vLLM cannot know which model this is")
    return names[0]


def _refuse_unknown_layers(text: Config, architecture: str) -> None:
    odd = [mark for mark in _UNKNOWN_MARKS if text.get(mark) is not None]
    if odd:
        told = f"its layers ({', '.join(odd)}) are not known here"
        raise FitError(f"the memory of {architecture} cannot be foretold: {told}")


def _layer_kinds(text: Config, model_type: str, count: int) -> tuple[tuple[str, ...], int]:
    """The kind of each layer, and how far local ones look back."""
    window = _optional(text, "sliding_window", least=0) or 0
    if model_type.startswith("qwen2") and not text.get("use_sliding_window"):
        window = 0
    names = text.get("layer_types")
    if isinstance(names, list):
        unknown = sorted({str(name) for name in names} - set(_LAYER_NAMES))
        if unknown or len(names) != count:
            told = f"kinds {unknown}" if unknown else f"{len(names)} entries for {count} layers"
            raise FitError(f"`layer_types` has {told}, which are not known here")
        kinds = tuple(_LAYER_NAMES[name] for name in names)
        if text.get("mamba_n_heads"):  # newer configurations call Mamba a linear attention too
            kinds = tuple(MAMBA if kind == LINEAR else kind for kind in kinds)
        return kinds, _optional(text, "attention_chunk_size", least=0) or window
    if interval := _optional(text, "full_attention_interval", least=0):
        return tuple(ATTENTION if (i + 1) % interval == 0 else LINEAR for i in range(count)), window
    pattern = text.get("sliding_window_pattern") or {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}.get(
        model_type
    )
    if window and isinstance(pattern, int) and pattern > 1:
        return tuple(ATTENTION if (i + 1) % pattern == 0 else SLIDING for i in range(count)), window
    if model_type == "gpt_oss":
        return tuple(SLIDING if i % 2 == 0 else ATTENTION for i in range(count)), window
    return (SLIDING if window else ATTENTION,) * count, window


def _kv_heads(text: Config, heads: int) -> int:
    found = _optional(text, "num_key_value_heads", "n_head_kv", "num_kv_heads", "n_kv_heads")
    return found or (1 if text.get("multi_query") else heads)


def _intermediate(text: Config, hidden: int) -> int:
    found = _optional(
        text, "intermediate_size", "ffn_dim", "n_inner", "hidden_dim", "decoder_ffn_dim", least=0
    )
    return 4 * hidden if found is None else found


def _rope(text: Config) -> tuple[str, Config]:
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise FitError(f"`rope_scaling` in config.json is {rope!r}, and should be an object")
    for name in ("factor", "original_max_position_embeddings"):
        value = rope.get(name)
        if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
            raise FitError(f"`{name}` of `rope_scaling` is {value!r}, and should be a number above zero")
    return str(rope.get("rope_type") or rope.get("type") or "default"), rope


def _original_context(text: Config) -> int | None:
    """Where a long context makes short ones worse, vLLM takes the short one unless it is told otherwise."""
    original = text.get("original_max_position_embeddings")
    stretched = _rope(text)[0] in ("longrope", "su") and original is not None
    return _number("original_max_position_embeddings", original, least=1) if stretched else None


def _limit(text: Config, model_type: str) -> int:
    """The length that the positions allow (``_get_and_verify_max_len`` in ``vllm/config/model.py``)."""
    kind, rope = _rope(text)
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions")
    length = _optional(text, *names, "max_sequence_length", "model_max_length", "n_ctx") or 2048
    if model_type in _RESERVED_POSITIONS:
        length -= 2
    stretches = kind not in ("default", "llama3", "yarn", "longrope", "su", "deepseek_yarn", "mrope")
    if stretches and "gemma3" not in model_type:
        length = int(length * (rope.get("factor") or 1))
    if length < 1:
        raise FitError("the positions in config.json (`max_position_embeddings`) hold no token")
    return length


def _tied(config: Config, text: Config, model_type: str) -> bool:
    for part in (config, text):
        if isinstance(given := part.get("tie_word_embeddings"), bool):
            return given
    # What transformers' configuration classes say where config.json is silent.
    return model_type in (
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma4_text",
        "opt",
        "whisper",
        "granitemoehybrid",
    )


def _dtype(config: Config, text: Config) -> str:
    for part in (config, text):
        if given := part.get("dtype") or part.get("torch_dtype"):
            return str(given).removeprefix("torch.")
    return "float32"  # what transformers and vLLM take it for


def _first(text: Config, *names: str) -> int:
    found = _optional(text, *names)
    if found is None:
        raise FitError(f"config.json has no `{names[0]}`, without which the model's size is unknown")
    return found


def _optional(text: Config, *names: str, least: int = 1) -> int | None:
    for name in names:
        if text.get(name) is not None:
            return _number(name, text[name], least=least)
    return None


def _number(name: str, value: Any, *, least: int = 0) -> int:
    if value is None:
        raise FitError(f"config.json has no `{name}`, without which the model's size is unknown")
    if isinstance(value, list) and value and all(isinstance(each, int) for each in value):
        value = max(value)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise FitError(f"`{name}` in config.json is {value!r}, and should be a whole number")
    if value < least:
        raise FitError(f"`{name}` in config.json is {value!r}, and should be {least} or more")
    return int(value)
