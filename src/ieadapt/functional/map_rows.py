"""Parts of an attention map that can be looked at: chosen rows, means over rows, sums over keys; never the whole map.

All are exact: every row's softmax runs over all its keys, block by block of query rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.functional.logits import DEFAULT_MEMORY_LIMIT, Logits
from ieadapt.functional.masks import KeyMask, Mask


@torch.no_grad()
def map_rows(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    rows: Sequence[int] | Int[Tensor, " row"],
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Float[Tensor, "batch head row key"]:
    """Rows of the attention map softmax(scale * query . key + mask): where these queries look.

    Args:
        query: queries, after rotary embedding and normalisation; half precision is computed in float32.
        key: keys, as many heads as the queries.
        rows: indices of the queries, in the order wanted.
        mask: boolean (True = attend) or additive, broadcastable to (batch, head, query, key).
        scale: factor of the products; None = 1 / sqrt(dim).
        memory_limit: bytes that temporaries may take together, besides the result.

    Returns:
        Weights in [0, 1]; each row sums to 1.

    Raises:
        UsageError: a row that is no query, shapes that do not fit, a limit below one row of logits.
        FailureError: a row whose mask leaves no key.

    Example:
        >>> import torch
        >>> tokens = 10 * torch.eye(3)[None, None]  # every token looks at itself
        >>> map_rows(tokens, tokens, [2]).round().tolist()
        [[[[0.0, 0.0, 1.0]]]]
    """
    index = torch.as_tensor(rows, dtype=torch.long, device=query.device)
    if index.numel() == 0 or index.min() < 0 or index.max() >= query.shape[-2]:
        raise UsageError(
            "these are no rows of the attention map",
            expected=f"at least one index in 0..{query.shape[-2] - 1}",
            got=index.tolist(),
        )
    return whole_map(query[..., index, :], key, mask_of(mask, index), scale, memory_limit)


def whole_map(
    query: Float[Tensor, "batch head row dim"],
    key: Float[Tensor, "batch head key dim"],
    mask: Mask | None,
    scale: float | None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Float[Tensor, "batch head row key"]:
    """The map of a few queries that were cut out before; see `map_rows`."""
    logits = _logits(query, key, mask, scale, memory_limit)
    found = torch.empty(*query.shape[:3], key.shape[-2], dtype=logits.dtype, device=query.device)
    for block, values, _ in logits.blocks(slice(0, query.shape[-2])):
        found[block] = values.softmax(dim=-1)
    return found


@torch.no_grad()
def mean_map_rows(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    spans: Sequence[slice],
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Float[Tensor, "batch head span key"]:
    """The mean row of the attention map over each span of queries: where these queries look on average.

    Args:
        query: as for `map_rows`.
        key: as for `map_rows`.
        spans: ranges of queries, such as the tokens of one frame.
        mask: as for `map_rows`.
        scale: as for `map_rows`.
        memory_limit: bytes that temporaries may take together, besides the result.

    Returns:
        Weights in [0, 1]; each row sums to 1.

    Raises:
        UsageError: an empty span or one that leaves the queries, shapes that do not fit, a limit below one row.
        FailureError: a row whose mask leaves no key.

    Example:
        >>> import torch
        >>> tokens = 10 * torch.eye(3)[None, None]
        >>> mean_map_rows(tokens, tokens, [slice(0, 2)]).mul(2).round().tolist()
        [[[[1.0, 1.0, 0.0]]]]
    """
    logits = _logits(query, key, mask, scale, memory_limit)
    sums = torch.zeros(*query.shape[:2], len(spans), key.shape[-2], dtype=logits.dtype, device=query.device)
    for index, span in enumerate(spans):
        if not 0 <= span.start < span.stop <= query.shape[-2]:
            raise UsageError("no such span of queries", expected=f"within 0..{query.shape[-2]}", got=span)
        for block, values, _ in logits.blocks(span):
            sums[*block[:2], index] += values.softmax(dim=-1).sum(dim=-2) / (span.stop - span.start)
    return sums


@torch.no_grad()
def map_sums(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    groups: Float[Tensor, "member group"],
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Float[Tensor, "batch head query group"]:
    """How much every query looks at each group of keys, such as the tokens of one word.

    Args:
        query: as for `map_rows`.
        key: as for `map_rows`.
        groups: 1 where a key belongs to a group, else 0.
        mask: as for `map_rows`.
        scale: as for `map_rows`.
        memory_limit: bytes that temporaries may take together, besides the result.

    Returns:
        Weights in [0, 1]: sums of the row's weights over the keys of the group.

    Raises:
        UsageError: groups of another number of keys, shapes that do not fit, a limit below one row of logits.
        FailureError: a row whose mask leaves no key.

    Example:
        >>> import torch
        >>> same = torch.zeros(1, 1, 4, 2)  # equal logits: a uniform map
        >>> map_sums(same, same, torch.tensor([[1.0], [1.0], [1.0], [0.0]])).flatten().tolist()
        [0.75, 0.75, 0.75, 0.75]
    """
    if groups.shape[0] != key.shape[-2]:
        raise UsageError("the groups do not fit the keys", expected=f"{key.shape[-2]} keys", got=groups.shape[0])
    logits = _logits(query, key, mask, scale, memory_limit)
    members = groups.to(device=query.device, dtype=logits.dtype)
    found = torch.empty(*query.shape[:3], groups.shape[1], dtype=logits.dtype, device=query.device)
    for block, values, _ in logits.blocks(slice(0, query.shape[-2])):
        found[block] = values.softmax(dim=-1) @ members
    return found


def _logits(query: Tensor, key: Tensor, mask: Mask | None, scale: float | None, memory_limit: int) -> Logits:
    return Logits(query, key, KeyMask(mask, False, key.shape[-2]), scale, memory_limit)


def mask_of(mask: Mask | None, index: slice | Int[Tensor, " row"]) -> Mask | None:
    """The mask of these query rows; a mask common to all rows stays as it is."""
    if mask is None or mask.ndim < 2 or mask.shape[-2] == 1:
        return mask
    return mask[..., index, :]
