"""Parts of an attention map: chosen rows, means over rows, sums over keys, exchanged columns, frames looking at frames.

The whole map is never built. All are exact: every row's softmax runs over all its keys, block by block of query rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.functional.attention import DEFAULT_MEMORY_LIMIT, Attention, measuring
from ieadapt.functional.logits import logit_blocks


@measuring
def map_rows(attention: Attention, rows: Sequence[int] | Int[Tensor, " row"]) -> Float[Tensor, "batch head row key"]:
    """Rows of the attention map softmax(scale * query . key + mask): where these queries look.

    Args:
        attention: half precision is computed in float32.
        rows: indices of the queries, in the order wanted.

    Returns:
        Weights in [0, 1]; each row sums to 1, or is 0 where the mask leaves it no key.

    Raises:
        UsageError: a row that is no query, shapes that do not fit, a limit below one row of logits.

    Example:
        >>> import torch
        >>> tokens = 10 * torch.eye(3)[None, None]  # every token looks at itself
        >>> map_rows(Attention(tokens, tokens, tokens), [2]).round().tolist()
        [[[[0.0, 0.0, 1.0]]]]
    """
    index = torch.as_tensor(rows, dtype=torch.long, device=attention.query.device)
    if index.numel() == 0 or index.min() < 0 or index.max() >= attention.query.shape[-2]:
        raise UsageError(
            "these are no rows of the attention map",
            expected=f"at least one index in 0..{attention.query.shape[-2] - 1}",
            got=index.tolist(),
        )
    return _every_row(attention.of_rows(index))


def _every_row(
    attention: Attention, groups: Float[Tensor, "key group"] | None = None
) -> Float[Tensor, "batch head query column"]:
    """The map of all queries, or its sums over groups of keys."""
    columns = attention.key.shape[-2] if groups is None else groups.shape[1]
    result = attention.query.new_empty((*attention.query.shape[:3], columns), dtype=attention.dtype)
    for block, logits, counts in logit_blocks(attention, slice(0, attention.query.shape[-2])):
        weights = _weights(logits, counts)
        result[block] = weights if groups is None else weights @ groups
    return result


def _weights(logits: Tensor, counts: Tensor | None) -> Tensor:
    """The rows of the map; 0 where a row sees no key."""
    weights = logits.softmax(dim=-1)
    return weights if counts is None else weights * (counts > 0)[..., None]


@measuring
def mean_map_rows(attention: Attention, spans: Sequence[slice]) -> Float[Tensor, "batch head span key"]:
    """The mean row of the attention map over each span of queries: where these queries look on average.

    Args:
        attention: as for `map_rows`.
        spans: ranges of queries, such as the tokens of one frame.

    Returns:
        Weights in [0, 1]; each row sums to 1, or is 0 where the mask leaves it no key.

    Raises:
        UsageError: an empty span or one that leaves the queries, shapes that do not fit, a limit below one row.

    Example:
        >>> import torch
        >>> tokens = 10 * torch.eye(3)[None, None]
        >>> mean_map_rows(Attention(tokens, tokens, tokens), [slice(0, 2)]).mul(2).round().tolist()
        [[[[1.0, 1.0, 0.0]]]]
    """
    n_queries, shape = attention.query.shape[-2], (*attention.query.shape[:2], len(spans), attention.key.shape[-2])
    sums = attention.query.new_zeros(shape, dtype=attention.dtype)
    for index, span in enumerate(spans):
        if not 0 <= span.start < span.stop <= n_queries:
            raise UsageError("no such span of queries", expected=f"within 0..{n_queries}", got=span)
        for block, logits, counts in logit_blocks(attention, span):
            sums[*block[:2], index] += _weights(logits, counts).sum(dim=-2) / (span.stop - span.start)
    return sums


@measuring
def map_sums(attention: Attention, groups: Float[Tensor, "member group"]) -> Float[Tensor, "batch head query group"]:
    """How much every query looks at each group of keys, such as the tokens of one word.

    Args:
        attention: as for `map_rows`.
        groups: 1 where a key belongs to a group, else 0.

    Returns:
        Weights in [0, 1]: sums of the row's weights over the keys of the group.

    Raises:
        UsageError: groups of another number of keys, shapes that do not fit, a limit below one row of logits.

    Example:
        >>> import torch
        >>> same = torch.zeros(1, 1, 4, 2)  # equal logits: a uniform map
        >>> groups = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
        >>> map_sums(Attention(same, same, same), groups).flatten().tolist()
        [0.75, 0.75, 0.75, 0.75]
    """
    if groups.shape[0] != attention.key.shape[-2]:
        raise UsageError(
            "the groups do not fit the keys", expected=f"{attention.key.shape[-2]} keys", got=groups.shape[0]
        )
    return _every_row(attention, groups.to(device=attention.query.device, dtype=attention.dtype))


@measuring
def prompt_to_prompt_output(
    attention: Attention,
    *,
    source: Attention,
    taken: Int[Tensor, " key"],
    factors: Float[Tensor, " key"],
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Float[Tensor, "batch head query channel"]:
    """Return the output of cross-attention with columns of its map taken from another prompt's map, and weighed.

    Column j becomes `factors[j] * source_map[:, taken[j]]`, or `factors[j] * map[:, j]` where `taken[j]` is -1. As in
    the original, rows are not normalised again: a word that weighs more adds to the output.

    Args:
        attention: one key per text token.
        source: the other prompt's attention, of as many queries.
        taken: per key, the index of the source's key whose column it takes; -1 keeps its own.
        factors: per key.
        memory_limit: bytes that the two maps of one block of queries may take.

    Raises:
        UsageError: `taken` names a key that the source lacks.

    Source: prompt-to-prompt, arXiv 2208.01626, word swap, refinement and re-weighting.

    Example:
        >>> query, key = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 3, 8)
        >>> own = Attention(query, key, key)
        >>> same = prompt_to_prompt_output(own, source=own, taken=torch.arange(3), factors=torch.ones(3))
        >>> bool(torch.allclose(own.output(), same, atol=1e-6))
        True
    """
    if int(taken.max()) >= source.key.shape[-2]:
        raise UsageError(
            "a word takes the map of a key that the source lacks",
            expected=f"below {source.key.shape[-2]}",
            got=int(taken.max()),
        )
    query, value = attention.query, attention.value
    columns = torch.stack([taken.clamp_min(0), taken >= 0, factors], dim=0).to(query.device, non_blocking=True)
    index, swapped, weights = columns[0].long(), columns[1].bool(), columns[2].float()
    keys = max(attention.key.shape[-2], source.key.shape[-2])
    size = max(memory_limit // (query.shape[0] * query.shape[1] * keys * 16), 1)
    output = value.new_empty((*query.shape[:-1], value.shape[-1]))
    for start in range(0, query.shape[-2], size):
        rows = slice(start, start + size)
        own, foreign = (_every_row(each.of_rows(rows)) for each in (attention, source))
        mixed = torch.where(swapped, foreign[..., index], own) * weights
        output[..., rows, :] = mixed.to(value.dtype) @ value
    return output


def cross_frame_intensity(
    query: Float[Tensor, "row head frame position dim"],
    key: Float[Tensor, "row head frame position dim"],
    *,
    scale: int | float | None = None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Float[Tensor, " row"]:
    """Return the mean weight off the diagonal of the frame-to-frame maps, one number per row of the batch.

    At each position of the frame (and in each head) the tokens of all frames attend to one another, a map of frames x
    frames with rows that add up to 1. The mean of its entries off the diagonal is 0 for the identity, 1 / frames for
    the uniform map, and at most 1 / (frames - 1). One frame has no such entry: 0.

    Args:
        query: the video tokens' queries on their grid.
        key: their keys.
        scale: factor of the products; None = 1 / sqrt(dim).
        memory_limit: bytes of temporaries.

    Source: Enhance-A-Video (arXiv 2502.07508), `enhance_score` of its code, whose mean runs over the whole batch.

    Example:
        >>> import torch
        >>> cross_frame_intensity(torch.zeros(1, 1, 4, 2, 8), torch.zeros(1, 1, 4, 2, 8))
        tensor([0.2500])
    """
    rows, heads, frames, positions, dim = query.shape
    if frames == 1:
        return query.new_zeros(rows, dtype=torch.float32)
    factor = dim**-0.5 if scale is None else scale
    own, other = (tokens.movedim(3, 1).flatten(0, 1) for tokens in (query, key))
    chunk = max(1, memory_limit // (4 * heads * frames * frames * 3))
    parts = []
    for start in range(0, own.shape[0], chunk):
        part = slice(start, start + chunk)
        maps = ((own[part] * factor) @ other[part].transpose(-1, -2)).float().softmax(dim=-1)
        parts.append(frames - maps.diagonal(dim1=-2, dim2=-1).sum(-1).mean(-1))
    off_diagonal = torch.cat(parts).unflatten(0, (rows, positions)).mean(1)
    return off_diagonal / (frames * frames - frames)
