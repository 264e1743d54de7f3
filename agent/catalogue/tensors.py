"""The tensors that vLLM holds for a model on one card, counted from the configuration alone.

Shapes follow vLLM's own modules (``vllm/model_executor/models``): query, key and value are one tensor, so
are gate and up; vocabularies are padded to 64; what cannot be divided among cards is held whole by each.
Only families whose modules were read are here; for others the weights have to be counted in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from agent.catalogue.shapes import LINEAR, MAMBA, Shape
from agent.errors import FitError


class Role(StrEnum):
    """What a tensor is for, which decides whether a quantisation touches it."""

    EMBEDDING = "embedding"
    HEAD = "head"
    LINEAR = "linear"
    """Projections of attention and MLP."""
    EXPERT = "expert"
    """The experts of a mixture."""
    STATE = "state"
    """Projections of Mamba and GatedDeltaNet layers."""
    SMALL = "small"
    """Norms, biases, routers, convolutions."""
    TOWER = "tower"
    """Encoders of images and sound."""
    BUFFER = "buffer"
    """What vLLM keeps beside the model's own parameters."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Equal tensors of a model."""

    role: Role
    elements: int
    """Elements of one of them, on this card."""
    copies: int = 1
    width: int | None = None
    """Bytes of one element, where it is not the model's own type."""


@dataclass(frozen=True, slots=True)
class Family:
    """How the decoder layers of one kind of model differ from Llama's."""

    gated: bool = True
    """Whether the MLP has a gate beside its up projection."""
    norms: int = 2
    """Norms in a layer."""
    norm_bias: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """Whether queries and keys are normalised, head by head."""
    wide_qk_norm: bool = False
    """Whether they are normalised over all heads at once (OLMo 2)."""
    head_bias: bool = False
    rotary: bool = True


_PLAIN = Family()
_ALL_BIASES = Family(gated=False, norm_bias=True, qkv_bias=True, out_bias=True, mlp_bias=True)
FAMILIES = {
    **dict.fromkeys(
        ("llama", "mistral", "ministral", "mixtral", "granite", "smollm3", "phi3", "internlm2"), _PLAIN
    ),
    **dict.fromkeys(("phi4mm", "phi3_v", "gemma", "granitemoe", "granitemoehybrid", "arcee"), _PLAIN),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "kimi_k2"), _PLAIN),
    **dict.fromkeys(
        ("qwen2", "qwen2_vl_text", "qwen2_5_vl_text", "qwen2_vl", "qwen2_5_vl"), Family(qkv_bias=True)
    ),
    "qwen2_moe": Family(qkv_bias=True),
    **dict.fromkeys(("qwen3", "qwen3_moe", "qwen3_vl_text", "qwen3_vl_moe_text"), Family(qk_norm=True)),
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_5", "qwen3_5_moe"), Family(qk_norm=True)
    ),
    "gemma2": Family(norms=4),
    "gemma3_text": Family(norms=4, qk_norm=True),
    "gemma4_text": Family(norms=4, qk_norm=True),
    "seed_oss": Family(qkv_bias=True),
    "gpt_oss": Family(qkv_bias=True, out_bias=True),
    "glm4": Family(norms=4),
    "cohere": Family(norms=1),
    "cohere2": Family(norms=1),
    "olmo2": Family(wide_qk_norm=True),
    "olmo3": Family(wide_qk_norm=True),
    "phi": Family(
        gated=False, norms=1, norm_bias=True, qkv_bias=True, out_bias=True, mlp_bias=True, head_bias=True
    ),
    "opt": Family(gated=False, norm_bias=True, qkv_bias=True, out_bias=True, mlp_bias=True, rotary=False),
    "starcoder2": _ALL_BIASES,
    "whisper": Family(
        gated=False, norms=3, norm_bias=True, qkv_bias=True, out_bias=True, mlp_bias=True, rotary=False
    ),
}
SCALES = 4  # of keys, values, queries and probabilities: vLLM keeps one number of each for every layer
_ROUTED = ("n_routed_experts", "num_local_experts", "num_experts")


def language_tensors(shape: Shape, *, tensor_parallel_size: int = 1, headless: bool = False) -> list[Tensor]:
    """The tensors of the language part on one card, the rotary tables not counted.

    Args:
        shape: The model.
        tensor_parallel_size: Cards that share them.
        headless: Whether the output embedding is left out.

    Raises:
        FitError: The family's modules are not known here, a size is missing, or a division leaves a rest.
    """
    tp = tensor_parallel_size
    if shape.heads % tp:
        raise FitError(f"{shape.heads} attention heads cannot be divided among {tp} cards")
    if shape.encoder_only and shape.model_type not in FAMILIES:
        return list(_encoder(shape))
    family = FAMILIES.get(shape.model_type)
    if family is None:
        raise FitError(
            f"the weights of {shape.architecture} (model_type {shape.model_type!r}) cannot be counted from "
            "config.json alone: give the directory or the hub id, so that its tensors can be counted"
        )
    tensors = list(_ends(shape, family, tp, headless=headless))
    for index, kind in enumerate(shape.kinds):
        if kind == LINEAR:
            tensors += _delta_net(shape, tp)
        elif kind == MAMBA:
            tensors += _mamba2(shape, tp)
        elif shape.mla:
            tensors += _latent_attention(shape, tp)
        else:
            tensors += _attention(shape, family, tp, wide=kind == "attention")
        if kind not in (LINEAR, MAMBA):
            tensors.append(Tensor(Role.BUFFER, 1, copies=SCALES, width=4))
        tensors += _mlp(shape, family, tp, index)
        tensors.append(_norm(shape.hidden, family, family.norms))
    return tensors


def _ends(shape: Shape, family: Family, tp: int, *, headless: bool) -> Iterator[Tensor]:
    table = padded_vocabulary(shape.vocab) // tp
    yield Tensor(Role.EMBEDDING, table * shape.hidden)
    if not shape.tied and not headless:
        yield Tensor(Role.HEAD, table * shape.hidden)
        if family.head_bias:
            yield Tensor(Role.SMALL, table)
    yield _norm(shape.hidden, family, 1)
    if shape.model_type.startswith("gemma3"):
        yield Tensor(Role.BUFFER, 1, width=4)  # what embeddings are multiplied by
    if shape.model_type == "opt":
        yield Tensor(Role.EMBEDDING, (shape.positions + 2) * shape.hidden)


def padded_vocabulary(vocab: int) -> int:
    """Rows of an embedding: vLLM pads to a multiple of 64."""
    return -(-vocab // 64) * 64


def _norm(size: int, family: Family, count: int) -> Tensor:
    return Tensor(Role.SMALL, size, copies=count * (2 if family.norm_bias else 1))


def _attention(shape: Shape, family: Family, tp: int, *, wide: bool) -> Iterator[Tensor]:
    dim, kv_heads = shape.head_dim, shape.kv_heads
    if wide and (given := shape.size("global_head_dim", 0)):  # Gemma 4
        dim, kv_heads = given, shape.size("num_global_key_value_heads", 0) or kv_heads
    heads, kv = shape.heads // tp, max(1, kv_heads // tp)
    gate = heads if shape.model_type.startswith(("qwen3_5", "qwen3_next")) else 0  # of the output
    rows = (heads + gate + 2 * kv) * dim
    yield Tensor(Role.LINEAR, rows * shape.hidden)
    yield Tensor(Role.LINEAR, heads * dim * shape.hidden)
    if family.qkv_bias or shape.text.get("attention_bias"):
        yield Tensor(Role.SMALL, rows)
    out = shape.text.get("attention_out_bias", shape.text.get("attention_bias"))
    if family.out_bias or (
        out and shape.model_type in ("llama", "qwen3", "qwen3_moe", "granite", "seed_oss")
    ):
        yield Tensor(Role.SMALL, shape.hidden)
    if family.qk_norm:
        yield Tensor(Role.SMALL, dim, copies=2)
    if family.wide_qk_norm:
        yield Tensor(Role.SMALL, heads * dim + kv * dim)
    if shape.model_type == "gpt_oss":
        yield Tensor(Role.SMALL, heads)  # attention sinks


def _latent_attention(shape: Shape, tp: int) -> Iterator[Tensor]:
    """Multi-head latent attention: what projects down is held whole by every card."""
    heads = shape.heads // tp
    rank, rope = shape.size("kv_lora_rank"), shape.size("qk_rope_head_dim")
    nope, value = shape.size("qk_nope_head_dim"), shape.size("v_head_dim")
    query_rank = shape.size("q_lora_rank", 0)
    if query_rank:
        yield Tensor(Role.LINEAR, (query_rank + rank + rope) * shape.hidden)
        yield Tensor(Role.SMALL, query_rank)
        yield Tensor(Role.LINEAR, heads * (nope + rope) * query_rank)
    else:
        yield Tensor(Role.LINEAR, heads * (nope + rope) * shape.hidden)
        yield Tensor(Role.LINEAR, (rank + rope) * shape.hidden)
    yield Tensor(Role.SMALL, rank)
    yield Tensor(Role.LINEAR, heads * (nope + value) * rank)
    yield Tensor(Role.LINEAR, heads * value * shape.hidden)


def _delta_net(shape: Shape, tp: int) -> Iterator[Tensor]:
    """GatedDeltaNet (Qwen3-Next, Qwen3.5): projections of q, k, v and the gate, a convolution, and
    scalars.
    """
    keys = shape.size("linear_num_key_heads") * shape.size("linear_key_head_dim") // tp
    heads = shape.size("linear_num_value_heads") // tp
    values = heads * shape.size("linear_value_head_dim")
    yield Tensor(Role.STATE, (2 * keys + 2 * values) * shape.hidden)
    yield Tensor(Role.STATE, 2 * heads * shape.hidden)
    yield Tensor(Role.SMALL, (2 * keys + values) * shape.size("linear_conv_kernel_dim", 4))
    yield Tensor(Role.SMALL, heads, copies=2, width=4)
    yield Tensor(Role.SMALL, shape.size("linear_value_head_dim"))
    yield Tensor(Role.STATE, values * shape.hidden)


def _mamba2(shape: Shape, tp: int) -> Iterator[Tensor]:
    inner = shape.size("mamba_expand", 2) * shape.hidden
    groups = shape.size("mamba_n_groups", 1)
    heads = shape.size("mamba_n_heads")
    mixed = (inner + 2 * groups * shape.size("mamba_d_state")) // tp
    yield Tensor(Role.STATE, (inner // tp + mixed + heads // tp) * shape.hidden)
    yield Tensor(Role.SMALL, mixed * shape.size("mamba_d_conv", 4))
    if shape.text.get("mamba_conv_bias", True):
        yield Tensor(Role.SMALL, mixed)
    yield Tensor(Role.SMALL, heads // tp, width=4)
    yield Tensor(Role.SMALL, heads // tp, copies=2)
    yield Tensor(Role.SMALL, inner // tp)
    yield Tensor(Role.STATE, inner // tp * shape.hidden)


def _mlp(shape: Shape, family: Family, tp: int, index: int) -> Iterator[Tensor]:
    experts = next((found for name in _ROUTED if (found := shape.size(name, 0))), 0)
    dense = index < shape.size("first_k_dense_replace", 0)
    shared = shape.size("shared_intermediate_size", 0)
    if not experts or dense:
        yield from _dense(shape, family, (shared or shape.intermediate) // tp)
        return
    own = shape.size("moe_intermediate_size", shape.size("intermediate_size", shape.intermediate)) // tp
    yield Tensor(Role.EXPERT, experts * 2 * own * shape.hidden)
    yield Tensor(Role.EXPERT, experts * own * shape.hidden)
    yield Tensor(Role.SMALL, experts * shape.hidden)
    if shape.model_type == "gpt_oss":
        yield Tensor(Role.SMALL, experts * (2 * own + shape.hidden) + experts)
    if shape.model_type == "deepseek_v3":
        yield Tensor(Role.SMALL, experts, width=4)
    beside = shape.size("shared_expert_intermediate_size", 0)
    shared = shared or beside or shape.size("n_shared_experts", 0) * own * tp
    if shared:
        yield from _dense(shape, family, shared // tp)
    if beside:
        yield Tensor(Role.SMALL, shape.hidden)
    if shape.model_type == "gemma4_text":  # a dense MLP beside the experts
        yield from _dense(shape, family, shape.intermediate // tp)


def _dense(shape: Shape, family: Family, inner: int) -> Iterator[Tensor]:
    yield Tensor(Role.LINEAR, (2 if family.gated else 1) * inner * shape.hidden)
    yield Tensor(Role.LINEAR, inner * shape.hidden)
    if family.mlp_bias or shape.text.get("mlp_bias"):
        yield Tensor(Role.SMALL, (2 if family.gated else 1) * inner)
        yield Tensor(Role.SMALL, shape.hidden)


def encoder_tables(shape: Shape) -> list[int]:
    """Rows of the embeddings of BERT and its kin: words, positions, kinds of text."""
    tables = [shape.vocab]
    if shape.model_type in _OLD_ENCODERS:
        tables.append(shape.positions)
    if shape.model_type != "modernbert":
        tables.append(shape.size("type_vocab_size", 2))
    return tables


_OLD_ENCODERS = ("bert", "roberta", "xlm-roberta")


def _encoder(shape: Shape) -> Iterator[Tensor]:
    """BERT and its kin."""
    hidden, inner, kind = shape.hidden, shape.intermediate, shape.model_type
    old = kind in _OLD_ENCODERS
    if not old and kind not in ("modernbert", "nomic_bert"):
        raise FitError(f"the weights of {shape.architecture} cannot be counted from config.json alone")
    for rows in encoder_tables(shape):
        yield Tensor(Role.EMBEDDING, padded_vocabulary(rows) * hidden)
    if old:
        yield Tensor(Role.BUFFER, shape.positions, width=8)  # position ids
    yield Tensor(Role.SMALL, hidden, copies=2)
    yield Tensor(Role.BUFFER, 1, copies=SCALES * shape.layers, width=4)
    for index in range(shape.layers):
        yield Tensor(Role.LINEAR, 3 * hidden * hidden)
        yield Tensor(Role.LINEAR, hidden * hidden)
        yield Tensor(Role.LINEAR, (1 if old else 2) * inner * hidden)
        yield Tensor(Role.LINEAR, inner * hidden)
        if old:
            yield Tensor(Role.SMALL, 3 * hidden + hidden + inner + hidden + 4 * hidden)
        elif kind == "nomic_bert":
            yield Tensor(Role.SMALL, 4 * hidden)
        else:  # ModernBERT: no norm before the first attention
            yield Tensor(Role.SMALL, hidden, copies=1 if index == 0 else 2)
