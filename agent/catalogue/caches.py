"""What the KV cache of one engine comes to: groups, blocks, tokens, and whether one request fits.

The same arithmetic as ``vllm/v1/core/kv_cache_utils.py`` and ``vllm/v1/kv_cache_interface.py`` of vLLM
0.32.0, without vLLM. Layers that hold equal caches form a group; every group takes blocks out of one pool,
so a block is as large as the largest group needs, and a request costs the sum over the groups.
``tests/contracts/test_vllm_memory.py`` compares the two on thousands of random models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.errors import FitError


class CacheKind(StrEnum):
    """How the cache of one layer grows with a request."""

    FULL = "full"
    """A key and a value for every token."""
    MLA = "mla"
    """One latent vector for every token (multi-head latent attention)."""
    SLIDING = "sliding"
    """Keys and values of the last ``window`` tokens."""
    CHUNKED = "chunked"
    """Keys and values of the current chunk of ``window`` tokens (Llama 4)."""
    STATE = "state"
    """A state of fixed size for every request (Mamba, GatedDeltaNet)."""
    CROSS = "cross"
    """Keys and values of the encoder's output (Whisper)."""


_EVERY_TOKEN = (CacheKind.FULL, CacheKind.MLA)
_LOCAL = (CacheKind.SLIDING, CacheKind.CHUNKED)


@dataclass(frozen=True, slots=True)
class LayerCache:
    """The cache of one layer on one card."""

    kind: CacheKind
    block_size: int
    """Tokens in a block."""
    heads: int = 1
    """Key-value heads on this card."""
    head_bytes: int = 0
    """Bytes of one token in one head, key and value together; for a state, bytes of the whole state."""
    window: int = 0
    """Tokens that a sliding or chunked layer looks back."""
    padded: int | None = None
    """Bytes that a block is padded to."""

    @property
    def page(self) -> int:
        """Bytes of one block."""
        return self.padded if self.padded is not None else self.content

    @property
    def content(self) -> int:
        """Bytes of one block before padding."""
        if self.kind is CacheKind.STATE:
            return self.head_bytes
        return self.block_size * self.heads * self.head_bytes

    def blocks_for(self, demand: Demand) -> int:
        """Blocks that one request at full length holds at most."""
        length = demand.max_model_len
        if self.kind in _EVERY_TOKEN:
            return _ceil(length, self.block_size)
        if self.kind is CacheKind.SLIDING:
            # One more, because the window need not begin at the beginning of a block.
            return _ceil(min(self.window - 1 + demand.in_flight, length), self.block_size) + 1
        if self.kind is CacheKind.CHUNKED:
            return _ceil(min(self.window + demand.in_flight, length), self.block_size)
        if self.kind is CacheKind.CROSS:
            return _ceil(demand.encoder_tokens, self.block_size)
        return demand.states


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request may ask of the cache."""

    max_model_len: int
    """Tokens of a request at most, prompt and answer together."""
    in_flight: int
    """Tokens that are scheduled and not yet settled: batches at once times ``max_num_batched_tokens``."""
    states: int = 2
    """States per request and layer: 2 with prefix caching (mode ``align``), 1 without, plus speculative
    ones.
    """
    encoder_tokens: int = 0
    """Tokens of an encoder's output at most."""


@dataclass(frozen=True, slots=True)
class Cache:
    """The whole cache as vLLM divides it."""

    groups: tuple[tuple[LayerCache, ...], ...]
    demand: Demand

    @property
    def block_bytes(self) -> int:
        """Bytes that one block takes out of the pool."""
        return max((sum(layer.page for layer in group) for group in self.groups), default=0)

    @property
    def blocks_per_request(self) -> int:
        """Blocks that one request at full length holds, over all groups."""
        return sum(max(layer.blocks_for(self.demand) for layer in group) for group in self.groups)

    @property
    def request_bytes(self) -> int:
        """Bytes that one request at full length needs."""
        return self.block_bytes * self.blocks_per_request

    @property
    def least_bytes(self) -> int:
        """Bytes below which vLLM does not start: one request and the block that it keeps back."""
        return self.request_bytes + self.block_bytes

    def blocks(self, available: int) -> int:
        """Blocks in ``available`` bytes; 1 where there is nothing to keep (encoder-only models)."""
        return max(0, available) // self.block_bytes if self.groups else 1

    def concurrency(self, available: int) -> float:
        """Requests of full length that ``available`` bytes hold at once."""
        if not self.groups:
            return float("inf")
        return self.blocks(available) / self.blocks_per_request

    def tokens(self, available: int) -> int:
        """The number that vLLM logs as «KV cache size» for ``available`` bytes."""
        return int(self.concurrency(available) * self.demand.max_model_len) if self.groups else 0

    def starts(self, available: int) -> bool:
        """Whether vLLM accepts ``available`` bytes."""
        return not self.groups or (available > self.block_bytes and self.least_bytes <= available)

    def longest(self, available: int) -> int:
        """The largest ``max_model_len`` up to the present one with which vLLM starts; 0 for none."""
        if not self.groups:
            return self.demand.max_model_len
        low, high, best = 1, self.demand.max_model_len, 0
        while low <= high:
            middle = (low + high) // 2
            if self.with_length(middle).starts(available):
                best, low = middle, middle + 1
            else:
                high = middle - 1
        return best

    def with_length(self, max_model_len: int) -> Cache:
        """The same cache with another ``max_model_len``."""
        return replace(self, demand=replace(self.demand, max_model_len=max_model_len))


def divide(layers: Sequence[LayerCache], demand: Demand, *, hybrid: bool = True) -> Cache:
    """Divide the layers into groups as vLLM does.

    Args:
        layers: The caches in the order of the layers; layers without a cache are left out.
        demand: What one request may ask.
        hybrid: False for ``--disable-hybrid-kv-cache-manager``: local layers are kept whole.

    Raises:
        FitError: vLLM cannot bring these layers together.
    """
    if not hybrid:
        layers = _promoted(layers)
    if not layers:
        return Cache((), demand)
    if len(set(layers)) == 1 or _one_kind(layers):
        return Cache((tuple(layers),), demand)
    try:
        layers = _one_page(layers)
    except FitError:
        # A latent cache beside sliding windows: vLLM then keeps the windows whole.
        kinds = {layer.kind for layer in layers}
        if CacheKind.CHUNKED in kinds or not {CacheKind.MLA, CacheKind.SLIDING} <= kinds:
            raise
        return Cache((tuple(_promoted(layers)),), demand)
    return Cache(_equal_groups(layers), demand)


def _one_kind(layers: Sequence[LayerCache]) -> bool:
    """Whether all layers need the same number of slots, so that one group holds them."""
    first = layers[0]
    if len({layer.block_size for layer in layers}) > 1:
        return False
    if first.kind in _EVERY_TOKEN:
        return all(layer.kind in _EVERY_TOKEN for layer in layers)
    if first.kind in _LOCAL:
        return all((layer.kind, layer.window) == (first.kind, first.window) for layer in layers)
    if first.kind is CacheKind.STATE:
        return all((layer.kind, layer.page) == (first.kind, first.page) for layer in layers)
    return all(layer.kind is first.kind for layer in layers)


def _one_page(layers: Sequence[LayerCache]) -> list[LayerCache]:
    """Bring all blocks to the largest one's bytes: with more tokens in a block, or else with padding."""
    largest = max(layer.page for layer in layers)
    return [_enlarged(layer, largest) for layer in layers]


def _enlarged(layer: LayerCache, page: int) -> LayerCache:
    if layer.page == page:
        return layer
    if layer.kind is not CacheKind.STATE and page % layer.page == 0:
        return replace(layer, block_size=layer.block_size * (page // layer.page))
    if layer.kind is CacheKind.MLA:
        msg = f"a latent cache of {layer.page} bytes per block cannot be padded to the {page} of other layers"
        raise FitError(msg)
    return replace(layer, padded=page)


def _equal_groups(layers: Sequence[LayerCache]) -> tuple[tuple[LayerCache, ...], ...]:
    """Split each kind of layer into groups of as many layers as the rarest kind has."""
    counts = Counter(layers)
    fewest, most = min(counts.values()), max(counts.values())
    # Rather a little padding than twice the groups: 12 and 13 layers become two groups of 13.
    size = most if most < fewest * 1.5 else fewest
    groups: list[tuple[LayerCache, ...]] = []
    for layer, count in counts.items():
        number = _ceil(count, size)
        groups += [(layer,) * len(range(start, count, number)) for start in range(number)]
    return tuple(groups)


def _promoted(layers: Sequence[LayerCache]) -> list[LayerCache]:
    """The layers with local ones kept whole, where there are whole ones beside them."""
    if not layers or _one_kind(layers):
        return list(layers)
    sizes = {layer.block_size for layer in layers if layer.kind in _EVERY_TOKEN}

    def promote(layer: LayerCache) -> LayerCache:
        if not sizes or layer.kind not in _LOCAL:
            return layer
        size = next(iter(sizes)) if len(sizes) == 1 else layer.block_size
        return replace(layer, kind=CacheKind.FULL, window=0, block_size=size)

    promoted = [promote(layer) for layer in layers]
    if not _one_kind(promoted):
        raise FitError("these layers cannot be kept whole in one cache: vLLM needs its hybrid cache manager")
    return promoted


def _ceil(value: int, unit: int) -> int:
    return -(-value // unit)
