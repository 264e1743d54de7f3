"""From a Llama model in one GGUF file to the directory of files that engines load.

vLLM cannot load this file as it is, and ``transformers`` could convert it, but that takes half a minute of
imports, a working torch, twice the memory, and yields a tokenizer that splits numbers in another way than the
model was trained on. What is needed is little: dequantise each tensor with the ``gguf`` package and give it
its other name.

The weights stay float32. Products of a quantised value and its scale do not fit 16 bits: in SmolLM2-135M's
Q4_1 file float16 would change 42 % of them and bfloat16 79 %, for a file half as large.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.catalogue.progress import Progress, no_progress
from agent.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer, pre_tokenizers

_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_TENSORS = {"token_embd": "embed_tokens", "output_norm": "norm"}
_CONTROL_TOKEN = 3  # gguf.TokenType.CONTROL


def convert(gguf_file: Path, directory: Path, *, progress: Progress = no_progress) -> None:
    """Write ``config.json``, the weights, the tokenizer and the chat template of a model into ``directory``.

    Args:
        gguf_file: A Llama model with tied embeddings, a byte-level BPE tokenizer and a chat template.
        directory: An existing, empty directory.
        progress: Told how many bytes of weights are written.

    Raises:
        MissingExtraError: The package ``gguf`` or ``tokenizers`` is not installed.
        OSError: A file could not be read or written.
    """
    try:
        import tokenizers  # noqa: F401
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingExtraError(
            f"Converting the embedded model needs the package {error.name}. "
            "Install an engine with it: pip install 'vllm-agent[cpu]' (or [gpu])."
        ) from error
    progress("Converting the weights", 0, 0)
    model = _Metadata(GGUFReader(gguf_file))
    _write_json(directory / "config.json", _config(model))
    _write_json(directory / "generation_config.json", _special_ids(model))
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(model))
    (directory / "chat_template.jinja").write_text(model["tokenizer.chat_template"], encoding="utf-8")
    (directory / "tokenizer.json").write_text(_tokenizer(model).to_str(), encoding="utf-8")
    _write_weights(directory / "model.safetensors", model, progress)


class _Metadata:
    """The key-value part of a GGUF file, read when asked for: its long lists take seconds."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader

    def __getitem__(self, key: str) -> Any:
        return self.reader.fields[key].contents()


def _config(model: _Metadata) -> dict[str, Any]:
    heads = model["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": model["llama.embedding_length"],
        "head_dim": model["llama.embedding_length"] // heads,
        "intermediate_size": model["llama.feed_forward_length"],
        "max_position_embeddings": model["llama.context_length"],
        "num_attention_heads": heads,
        "num_hidden_layers": model["llama.block_count"],
        "num_key_value_heads": model["llama.attention.head_count_kv"],
        # GGUF stores float32: 1e-05 comes back as 9.999999747378752e-06.
        "rms_norm_eps": float(f"{model['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {"rope_theta": model["llama.rope.freq_base"], "rope_type": "default"},
        "tie_word_embeddings": True,
        "vocab_size": model["llama.vocab_size"],
        **_special_ids(model),
    }


def _special_ids(model: _Metadata) -> dict[str, int]:
    return {
        "bos_token_id": model["tokenizer.ggml.bos_token_id"],
        "eos_token_id": model["tokenizer.ggml.eos_token_id"],
        "pad_token_id": model["tokenizer.ggml.padding_token_id"],
    }


def _tokenizer_config(model: _Metadata) -> dict[str, Any]:
    tokens = model["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "bos_token": tokens[model["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[model["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[model["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[model["tokenizer.ggml.unknown_token_id"]],
    }


def _tokenizer(model: _Metadata) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders
    from tokenizers.models import BPE

    tokens = model["tokenizer.ggml.tokens"]
    kinds = model["tokenizer.ggml.token_type"]
    left_right = (merge.split(" ") for merge in model["tokenizer.ggml.merges"])
    tokenizer = Tokenizer(
        BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=[(left, right) for left, right in left_right],
        )
    )
    tokenizer.pre_tokenizer = _pre_tokenizer(model["tokenizer.ggml.pre"])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, normalized=False, special=True)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    return tokenizer


def _pre_tokenizer(name: str) -> pre_tokenizers.Sequence:
    """How text is cut before BPE; GGUF gives it only a name."""
    from tokenizers import pre_tokenizers

    if name != "smollm":
        raise ValueError(f"unknown pre-tokenizer {name!r} in a GGUF file")
    # Digits come first, each alone: «  15» is two spaces, 1, 5. Byte-level splitting by itself would leave
    # one of the spaces before the 1, which gives ids that the model never saw in training.
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _write_weights(path: Path, model: _Metadata, progress: Progress) -> None:
    """Write a safetensors file tensor by tensor: 8 bytes of header length, a JSON header, the data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    total = 0
    for tensor in model.reader.tensors:
        size = 4 * int(tensor.n_elements)
        shape = [int(side) for side in reversed(tensor.shape)]
        header[_engine_name(tensor.name)] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [total, total + size],
        }
        total += size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the format wants the data aligned
    done = 0
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for weights in _weights(model):
            file.write(weights.data)
            done += weights.nbytes
            progress("Converting the weights", done, total)


def _weights(model: _Metadata) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    import numpy as np
    from gguf import dequantize

    heads = {
        "attn_q": model["llama.attention.head_count"],
        "attn_k": model["llama.attention.head_count_kv"],
    }
    for tensor in model.reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        count = heads.get(tensor.name.split(".")[-2])
        if count:
            # llama.cpp interleaves the two halves that rotary embedding pairs up; engines want them apart.
            rows, columns = weights.shape
            weights = weights.reshape(count, rows // count // 2, 2, columns).swapaxes(1, 2)
        yield np.ascontiguousarray(weights, dtype="<f4")


def _engine_name(name: str) -> str:
    """``blk.3.attn_q.weight`` is ``model.layers.3.self_attn.q_proj.weight`` outside of GGUF."""
    match name.split("."):
        case ["blk", layer, part, "weight"]:
            return f"model.layers.{layer}.{_LAYER_TENSORS[part]}.weight"
        case [part, "weight"]:
            return f"model.{_TOP_TENSORS[part]}.weight"
    raise ValueError(f"unknown tensor {name!r} in a GGUF file")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
