"""Bytes of the weights that vLLM holds on one card: «Model loading took X GiB» in its log.

From the best source there is: the tensors of the checkpoint themselves, the total in its index, a published
number of parameters, or the configuration alone. To the weights come the rotary tables that the model keeps,
and on a GPU what PyTorch's allocator rounds up (``c10/cuda/CUDACachingAllocator.cpp``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.catalogue.attention import WIDTHS
from agent.catalogue.checkpoint import StoredTensor
from agent.catalogue.quantization import Quantization
from agent.catalogue.shapes import LINEAR, MAMBA, Shape
from agent.catalogue.tensors import FAMILIES, SCALES, Role, Tensor, encoder_tables, language_tensors
from agent.errors import FitError

_MIB = 1 << 20
# Parameters of an encoder of images that nobody has counted: those in the catalogue have 0.30 to 0.68
# billion.
_USUAL_TOWER = 450_000_000
_TOWER_ERROR = 250_000_000
# Of these, what is not counted is not only a tower: they have tables of embeddings for every layer.
_MORE_THAN_A_TOWER = ("gemma4_text",)


@dataclass(frozen=True, slots=True)
class Weights:
    """What the weights come to on one card."""

    size: int
    """Bytes."""
    error: float
    """How far off this may be, as a share."""
    source: str
    """Where the number comes from, for people."""


def counted_weights(
    shape: Shape,
    *,
    dtype: str,
    quantization: Quantization | None = None,
    tensor_parallel_size: int = 1,
    parameters: int | None = None,
    headless: bool = False,
    towers: bool = True,
    gpu: bool = True,
) -> Weights:
    """The weights by arithmetic.

    Args:
        shape: The model.
        dtype: The type that it computes in.
        quantization: How its projections are stored; None for as they are.
        tensor_parallel_size: Cards that share them.
        parameters: How many parameters vLLM loads, where that is known: what the arithmetic does not find of
            them, such as an encoder of images, is kept in ``dtype``.
        headless: Whether the output embedding is left out, because the model answers with vectors or scores.
        towers: Whether encoders of images and sound are loaded (not with ``--language-model-only``).
        gpu: Whether PyTorch's allocator for CUDA rounds.

    Raises:
        FitError: The family is not known here and there is no number of parameters.
    """
    width = WIDTHS[dtype]
    tensors = language_tensors(shape, tensor_parallel_size=tensor_parallel_size, headless=headless)
    size = sum(t.copies * _held(t, width, quantization, gpu=gpu) for t in tensors)
    size += rotary_bytes(shape, width)
    if quantization is not None and quantization.name == "mxfp4":
        size += _padding_of_experts(shape, tensors, quantization)
    if parameters is None:
        if shape.multimodal and towers:
            size += _USUAL_TOWER * width
            error = 0.01 + _TOWER_ERROR * width / size
            return Weights(size, error, "counted from config.json, with an encoder of the usual size assumed")
        if shape.intermediate == 0:
            raise FitError(
                f"the weights of {shape.architecture} are unknown: neither MLP size nor parameters"
            )
        return Weights(size, 0.01 if quantization is None else 0.03, "counted from config.json")
    rest = parameters - real_parameters(shape, headless=headless)
    if shape.encoder_only and shape.architecture.endswith("Model"):
        rest = 0  # a pooler, which vLLM does not load for embeddings
    if not towers and shape.intermediate and shape.model_type not in _MORE_THAN_A_TOWER:
        rest = 0
    if rest > 0.002 * parameters:
        # A tower or tables that this package does not count: every card holds them whole. Where the size of
        # the MLP is not known, most of it is the MLP.
        role = Role.TOWER if shape.intermediate else Role.LINEAR
        parts = 1 if shape.intermediate else tensor_parallel_size
        size += round(_stored(Tensor(role, rest), width, quantization) / parts)
        if quantization is not None and not shape.intermediate:
            return Weights(size, 0.1, "published number of parameters")
    return Weights(size, _error(quantization), "published number of parameters")


def _error(quantization: Quantization | None) -> float:
    """How far off the logs were at most: what a checkpoint quantises differs, but not for MXFP4."""
    if quantization is None:
        return 0.003
    return 0.005 if quantization.name == "mxfp4" else 0.02


def real_parameters(shape: Shape, *, headless: bool = False) -> int:
    """The parameters that are counted, without padding rows, as a model's page counts them."""
    tensors = language_tensors(shape, headless=headless)
    found = sum(t.elements * t.copies for t in tensors if t.role is not Role.BUFFER)
    if shape.encoder_only and shape.model_type not in FAMILIES:
        tables = encoder_tables(shape)
    else:
        tables = [shape.vocab] * (1 if shape.tied or headless else 2)
    return found - sum(-rows % 64 for rows in tables) * shape.hidden


def _held(tensor: Tensor, width: int, quantization: Quantization | None, *, gpu: bool) -> int:
    """Bytes that one tensor takes on a card: packed weights, and beside them scales as a tensor of their
    own.
    """
    size = _stored(tensor, width, quantization)
    if quantization is None or tensor.role not in quantization.roles:
        return _allocated(size, gpu=gpu)
    packed = round(
        tensor.elements * min(quantization.bytes_per_weight, 1.0 if size >= tensor.elements else 0.5)
    )
    return _allocated(packed, gpu=gpu) + size - packed


def _stored(tensor: Tensor, width: int, quantization: Quantization | None) -> int:
    if tensor.width is not None:
        return tensor.elements * tensor.width
    each = width if quantization is None else quantization.width(tensor.role, width)
    return round(tensor.elements * each)


def _allocated(size: int, *, gpu: bool) -> int:
    """Large tensors take whole units of 2 MiB, unless more than 1 MiB of the last is left to split off."""
    if not gpu or size < 10 * _MIB:
        return size
    rounded = -(-size // (2 * _MIB)) * 2 * _MIB
    return rounded if rounded - size <= _MIB else size


def _padding_of_experts(shape: Shape, tensors: Sequence[Tensor], quantization: Quantization) -> int:
    """The MXFP4 kernels pad experts: 2880 becomes 3072 one way and 2944 the other (gpt-oss)."""
    experts = sum(t.elements * t.copies for t in tensors if t.role is Role.EXPERT)
    wide = (-(-shape.hidden // 256) * 256) * (-(-shape.intermediate // 128) * 128)
    grown = wide / (shape.hidden * shape.intermediate)
    return round(experts * (grown - 1) * quantization.bytes_per_weight)


_UNROTATED = ("granitemoehybrid",)  # unless the configuration says otherwise


def rotary_bytes(shape: Shape, width: int) -> int:
    """The tables of cosines and sines: one for each kind of rotation, over all positions."""
    family = FAMILIES.get(shape.model_type)
    if (family is not None and not family.rotary) or shape.model_type in ("bert", "roberta", "xlm-roberta"):
        return 0
    rotates = shape.text.get("position_embedding_type") or (
        "nope" if shape.model_type in _UNROTATED else "rope"
    )
    if rotates in ("absolute", "learned", "nope"):
        return 0
    dim = shape.size("qk_rope_head_dim") if shape.mla else shape.head_dim
    share = shape.text.get("partial_rotary_factor")
    dim = int(dim * share) if isinstance(share, int | float) and 0 <= share <= 1 and not shape.mla else dim
    rope = shape.text.get("rope_scaling") or shape.text.get("rope_parameters") or {}
    kinds = 2 if shape.model_type.startswith(("gemma3", "gemma4")) else 1
    if str(rope.get("rope_type") or rope.get("type") or "") in ("longrope", "su"):
        kinds = 2  # a short and a long table
    length = shape.positions
    if shape.mla and isinstance(factor := rope.get("factor"), int | float):
        length = int((rope.get("original_max_position_embeddings") or length) * factor)
        width = 4
    return kinds * length * dim * width


# -- from the checkpoint's own tensors
# ------------------------------------------------------------------------

_NOT_LOADED = re.compile(
    r"(^|\.)(mtp|nextn)\.|rotary_emb\.inv_freq$|position_ids$|\.attn\.(bias|masked_bias)$|num_batches_tracked$"
)
_WHOLE = re.compile(
    r"norm|layernorm|\.gate\.weight|router|kv_a_proj|q_a_proj|visual|vision|audio|tower|\.o_proj\.bias|down_proj\.bias"
)
_TOWER = re.compile(
    r"(^|\.)(visual|vision_tower|vision_model|audio_tower|multi_modal_projector|vision_encoder)\."
)
_PADDED = (
    *("embed_tokens.weight", "lm_head.weight", "word_embeddings.weight", "token_type_embeddings.weight"),
    "position_embeddings.weight",
)
_FLOAT32 = ("A_log", ".A", "mamba.D", "e_score_correction_bias")
_KEYS = re.compile(r"\.(k_proj|v_proj)\.")


def stored_weights(
    shape: Shape,
    tensors: Iterable[StoredTensor],
    *,
    dtype: str,
    tensor_parallel_size: int = 1,
    quantized: bool = False,
    towers: bool = True,
    gpu: bool = True,
) -> Weights:
    """The weights counted in the checkpoint: every tensor that vLLM loads, in the type that it keeps it in.

    Raises:
        FitError: A tensor has a type that is not known here.
    """
    width = WIDTHS[dtype]
    size = 0
    for tensor in tensors:
        if not _is_loaded(shape, tensor.name, towers=towers):
            continue
        elements = math.prod(tensor.shape)
        if tensor.name.endswith(_PADDED) and tensor.shape:
            elements += -tensor.shape[0] % 64 * math.prod(tensor.shape[1:])
        kept = tensor.width if quantized or tensor.integer else width
        if tensor.name.endswith(_FLOAT32):
            kept = max(kept, 4)
        held = round(elements * kept / _parts(shape, tensor.name, tensor_parallel_size))
        size += _allocated(held, gpu=gpu)
    if size == 0:
        raise FitError("the checkpoint holds no tensor that vLLM loads")
    size += rotary_bytes(shape, width) + _scalars(shape)
    return Weights(size, 0.003 if not quantized else 0.02, "tensors of the checkpoint")


def _is_loaded(shape: Shape, name: str, *, towers: bool) -> bool:
    """Whether vLLM loads a tensor of that name."""
    if _NOT_LOADED.search(name) or (not towers and _TOWER.search(name)):
        return False
    if shape.text.get("num_nextn_predict_layers") and f".layers.{shape.layers}." in name:
        return False  # a layer that only guesses ahead
    vectors = shape.architecture.endswith(("Model", "Classification"))
    if name.endswith("lm_head.weight"):
        return not (shape.tied or vectors)
    return not ("pooler." in name and shape.encoder_only and shape.architecture.endswith("Model"))


def _scalars(shape: Shape) -> int:
    """What vLLM keeps beside what is stored: four scales for every attention, and ids of positions."""
    attending = sum(kind not in (LINEAR, MAMBA) for kind in shape.kinds)
    ids = 8 * shape.positions if shape.model_type in ("bert", "roberta", "xlm-roberta") else 0
    return 4 * SCALES * attending + (4 if shape.model_type.startswith("gemma3") else 0) + ids


def _parts(shape: Shape, name: str, tp: int) -> int:
    """Among how many cards a tensor is divided."""
    if tp == 1 or _WHOLE.search(name):
        return 1
    return min(tp, shape.kv_heads) if _KEYS.search(name) else tp
