"""Attention logits in blocks of query rows, so that no map of a whole sequence ever exists."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.functional.attention import Attention, Block

CACHE_ELEMENTS = 2**19
"""Logits of one block on a CPU: 2 MB in float32, which stays in its cache; larger blocks run up to twice as long."""

COPIES = 4
"""Tensors of a block's size that exist at one time: logits, weights, and what a reduction holds meanwhile."""


class BlockPlan(NamedTuple):
    """How many batch entries, heads and query rows one block holds."""

    batches: int
    heads: int
    queries: int


def plan_blocks(
    shape: tuple[int, int, int], n_keys: int, dtype: torch.dtype, device: torch.device, memory_limit: int
) -> BlockPlan:
    """Choose blocks under a memory limit: few large products for short sequences, cache-sized ones on a CPU.

    Args:
        shape: batch, heads and query rows of the whole call.
        n_keys: keys of each row.
        dtype: type in which logits are kept.
        device: where they are kept.
        memory_limit: bytes that all temporaries of a block may take together.

    Raises:
        UsageError: when not even one row fits.

    Example:
        >>> import torch
        >>> plan_blocks((2, 8, 16), 16, torch.float32, torch.device("cpu"), 2**20)
        BlockPlan(batches=2, heads=8, queries=16)
        >>> plan_blocks((1, 1, 17776), 17776, torch.float32, torch.device("cpu"), 2**28)
        BlockPlan(batches=1, heads=1, queries=29)
    """
    batch, heads, queries = shape
    row_bytes = COPIES * n_keys * dtype.itemsize
    if memory_limit < row_bytes:
        raise UsageError(
            "the memory limit holds less than one row of logits",
            expected=f">= {row_bytes} bytes for {n_keys} keys",
            got=memory_limit,
            where="memory_limit",
        )
    rows = memory_limit // row_bytes
    if device.type == "cpu":
        rows = min(rows, max(CACHE_ELEMENTS // n_keys, 1))
    if rows >= heads * queries:
        return BlockPlan(min(rows // (heads * queries), batch), heads, queries)
    if rows >= queries:
        return BlockPlan(1, rows // queries, queries)
    return BlockPlan(1, 1, rows)


def block_places(attention: Attention, rows: slice) -> Iterator[Block]:
    """Yield the blocks that the given query rows of an attention fall into, queries fastest.

    Example:
        >>> import torch
        >>> tokens = torch.zeros(1, 1, 8, 4)
        >>> three_rows = Attention(tokens, tokens, tokens, memory_limit=3 * COPIES * 8 * 4)
        >>> [block.query for block in block_places(three_rows, slice(2, 7))]
        [slice(2, 5, None), slice(5, 7, None)]
    """
    (batch, heads), n_keys = attention.query.shape[:2], attention.key.shape[-2]
    shape = (batch, heads, rows.stop - rows.start)
    plan = plan_blocks(shape, n_keys, attention.dtype, attention.query.device, attention.memory_limit)
    spans = zip((0, 0, rows.start), (batch, heads, rows.stop), plan, strict=True)
    for block in product(*(_spans(*span) for span in spans)):
        yield Block(*block)


def _spans(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(low, min(low + size, stop)) for low in range(start, stop, size))


def logit_blocks(
    attention: Attention, rows: slice
) -> Iterator[tuple[Block, Float[Tensor, "batch head query key"], Tensor | None]]:
    """Yield each block of the given query rows: where it is, its logits, and the keys left per row (None = all).

    Half-precision queries and keys are multiplied in float32, block by block; float64 stays float64. The logits are the
    receiver's to overwrite.
    """
    pairs, key = None, attention.key
    for block in block_places(attention, rows):
        if block[:2] != pairs:
            pairs = block[:2]
            key = attention.key[block[:2]].to(attention.dtype).flatten(0, 1).transpose(1, 2)
        query = attention.query[block].to(attention.dtype)
        nothing = query.new_zeros(1, 1, 1)  # beta=0: not read, but it lets the product carry the scale
        products = torch.baddbmm(nothing, query.flatten(0, 1), key, beta=0, alpha=attention.factor)
        logits = products.unflatten(0, query.shape[:2])
        yield block, logits, attention.apply_mask(logits, block)


class RowMoments(NamedTuple):
    """What a softmax over a row's logits says: its log-sum-exp, its entropy in nats, and its unnormalised weights."""

    logsumexp: Float[Tensor, "batch head query"]
    entropy: Float[Tensor, "batch head query"]
    weights: Float[Tensor, "batch head query key"]


def row_moments(logits: Float[Tensor, "batch head query key"]) -> RowMoments:
    """Return the moments of every row's softmax from one exponential; the logits are overwritten.

    With s the logits less their maximum and Z the sum of exp(s), the entropy is ln Z - sum(s exp(s)) / Z: both terms
    are at least 0, so nothing cancels.

    Example:
        >>> import torch
        >>> moments = row_moments(torch.zeros(1, 1, 1, 4))
        >>> round(moments.entropy.item(), 4)  # ln 4
        1.3863
    """
    peak = logits.amax(dim=-1, keepdim=True)
    weights = logits.sub_(peak).exp()
    total = weights.sum(dim=-1)
    entropy = total.log() - logits.mul_(weights).sum(dim=-1) / total
    return RowMoments(peak.squeeze(-1) + total.log(), entropy, weights)
