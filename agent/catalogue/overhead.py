"""What vLLM takes of a card beside weights and KV cache: context, activations, sampler, CUDA graphs.

The accounting is that of ``GPUWorker.determine_available_memory`` (``vllm/v1/worker/gpu_worker.py``,
0.32.0): of ``total × gpu_memory_utilization`` everything is taken off that a dummy run of
``max_num_batched_tokens`` needs at its peak, and what CUDA graphs will take. How much that is depends on
kernels and drivers, so it is a band. The constants are fitted on the rows marked ``calibrate`` in
``benchmarks/fit_reports.toml``, and ``benchmarks/fit.py`` tests them on the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.catalogue.attention import WIDTHS
from agent.catalogue.bands import Band
from agent.catalogue.cards import GIB, Card
from agent.catalogue.shapes import Shape

# GiB. Context, workspaces and fragmentation; the two ends are the least and the most that was measured.
_FIXED = Band(0.0, 0.60, 1.20)
# GiB that all 51 graphs take that vLLM captures by default (0.23 to 0.84 measured).
_GRAPHS = Band(0.10, 0.35, 0.70)
_ALL_SIZES = 51
_SAMPLER_BYTES = (
    6  # logits in float32, and a copy of them in the model's type, per sequence and vocabulary entry
)
# Activations of an encoder, in units of its hidden size and type: 15 GiB for 458,752 patches of Qwen2.5-VL.
_PATCH_FACTOR = 13.0
_CONTEXT_PER_CARD = 0.2  # GiB of buffers of the communication among cards


@dataclass(frozen=True, slots=True)
class Running:
    """How the engine is run, as far as memory goes."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    dtype: str
    tensor_parallel_size: int = 1
    enforce_eager: bool = False
    images: bool = True
    """Whether images and videos are taken (``--limit-mm-per-prompt``, ``--language-model-only``)."""
    videos: bool = True


@dataclass(frozen=True, slots=True)
class Overhead:
    """The parts, in GiB."""

    activations: Band
    """Peak of the dummy run, sampler and encoder included."""
    graphs: Band
    """CUDA graphs."""
    fixed: Band
    """Context of the card, libraries, fragmentation."""

    @property
    def total(self) -> Band:
        """All of it: the low end is what was measured at best."""
        parts = (self.activations, self.graphs, self.fixed)
        return Band(*(sum(getattr(part, end) for part in parts) for end in ("low", "mid", "high")))


def overhead(shape: Shape, running: Running) -> Overhead:
    """What a model takes beside weights and KV cache on one card."""
    width = WIDTHS[running.dtype]
    inner = _inner(shape) / running.tensor_parallel_size
    forward = running.max_num_batched_tokens * (2 * shape.hidden + 3 * inner) * width / GIB
    sampler = 0.0 if shape.encoder_only else running.max_num_seqs * shape.vocab * _SAMPLER_BYTES / GIB
    encoder = encoder_gib(shape, running) if shape.multimodal and running.images else 0.0
    activations = Band(
        0.8 * forward + sampler / 2 + encoder / 4,
        forward + sampler / 2 + encoder,
        1.3 * forward + sampler + 1.5 * encoder,
    )
    share = 0.0 if running.enforce_eager or shape.encoder_only else captured_sizes(running) / _ALL_SIZES
    graphs = Band.exactly(0.0)
    if share:
        graphs = Band(*(0.03 + getattr(_GRAPHS, end) * share for end in ("low", "mid", "high")))
    extra = _CONTEXT_PER_CARD if running.tensor_parallel_size > 1 else 0.0
    fixed = Band(_FIXED.low, _FIXED.mid + extra, _FIXED.high + 3 * extra)
    return Overhead(activations, graphs, fixed)


def _inner(shape: Shape) -> int:
    """The width of the widest MLP: with experts, that of all that one token is sent to."""
    chosen = shape.text.get("num_experts_per_tok")
    own = shape.text.get("moe_intermediate_size")
    if isinstance(chosen, int) and isinstance(own, int):
        return max(chosen * own, shape.size("shared_intermediate_size", 0))
    return shape.intermediate or 3 * shape.hidden


def captured_sizes(running: Running) -> int:
    """How many batch sizes CUDA graphs are captured for (``vllm/config/compilation.py``)."""
    largest = min(2 * running.max_num_seqs, 512, running.max_num_batched_tokens)
    sizes = {size for size in (1, 2, 4) if size <= largest}
    sizes |= set(range(8, min(largest, 255) + 1, 8)) | set(range(256, largest + 1, 16))
    return len(sizes)


_TOWERS = {
    # The beginning of the architecture's name: hidden size, patches per token, most tokens of an image, of a
    # video.
    "Qwen2_5_VL": (1280, 4, 16_384, 114_688),
    "Qwen2VL": (1280, 4, 16_384, 114_688),
    "Qwen3VL": (1152, 4, 16_384, 16_384),
    "Qwen3_5": (1152, 4, 16_384, 16_384),
    "Gemma": (1152, 16, 256, 256),
    "InternVL": (1024, 4, 3_328, 3_328),
}
_OTHER_TOWER = (1152, 1, 4096, 4096)


def encoder_gib(shape: Shape, running: Running) -> float:
    """Peak of the encoder's dummy run on the largest image or video that the context has room for, in GiB."""
    tower = next((v for k, v in _TOWERS.items() if shape.architecture.startswith(k)), _OTHER_TOWER)
    hidden, patches, image, video = tower
    tokens = min(running.max_model_len, video if running.videos else image)
    return tokens * patches * hidden * _PATCH_FACTOR * WIDTHS[running.dtype] / GIB


@dataclass(frozen=True, slots=True)
class Defaults:
    """What vLLM takes where nobody chooses (``vllm/engine/arg_utils.py``, ``get_batch_defaults``)."""

    max_num_seqs: int
    max_num_batched_tokens: int


def defaults(card: Card, *, serving: bool = True, world_size: int = 1) -> Defaults:
    """Sequences and tokens of a batch, for ``vllm serve`` or for ``vllm.LLM``."""
    if card.cpu:
        return Defaults((128 if serving else 256) * world_size, (2048 if serving else 4096) * world_size)
    if card.total_gib >= 160:
        return Defaults(1024, 16_384)
    # A100 is left out of the second rule by name.
    if card.total_gib >= 70 and "a100" not in card.name.lower():
        return Defaults(1024, 8192 if serving else 16_384)
    return Defaults(256, 2048 if serving else 8192)


def usable_share(card: Card, *, headroom: float = 0.3) -> float:
    """A safe ``gpu_memory_utilization``: vLLM refuses to start where less than that is free."""
    if card.free_gib is None:
        return 0.90
    share = int((card.free_gib - headroom) / card.total_gib * 100) / 100
    return max(0.05, min(0.92, share))
