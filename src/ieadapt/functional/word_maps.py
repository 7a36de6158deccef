"""What cross-attention would give if words looked where another prompt's words look, or weighed more or less."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.functional.logits import DEFAULT_MEMORY_LIMIT
from ieadapt.functional.map_rows import mask_of, whole_map
from ieadapt.functional.masks import Mask


@torch.no_grad()
def word_map_output(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    value: Float[Tensor, "batch head key value_dim"],
    *,
    source_query: Float[Tensor, "batch head query dim"],
    source_key: Float[Tensor, "batch head source_key dim"],
    taken: Int[Tensor, " key"],
    factors: Float[Tensor, " key"],
    mask: Mask | None = None,
    source_mask: Mask | None = None,
    scale: float | None = None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Float[Tensor, "batch head query value_dim"]:
    """Return the attention output with columns of the map taken from the source's map, and weighed.

    Column j becomes `factors[j] * source_map[:, taken[j]]`, or `factors[j] * map[:, j]` where `taken[j]` is -1. As in
    the original, rows are not normalised again: a word that weighs more adds to the output.

    Args:
        query: queries.
        key: keys, one per text token.
        value: values.
        source_query: the source's queries.
        source_key: the source's keys.
        taken: per key, the index of the source's key whose column it takes; -1 keeps its own.
        factors: per key.
        mask: which keys a row may attend to.
        source_mask: the same for the source.
        scale: factor of the products; None = 1 / sqrt(dim).
        memory_limit: bytes that the two maps of one block of queries may take.

    Raises:
        UsageError: `taken` names a key that the source lacks.

    Source: prompt-to-prompt, arXiv 2208.01626, word swap, refinement and re-weighting.

    Example:
        >>> query, key = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 3, 8)
        >>> plain = torch.nn.functional.scaled_dot_product_attention(query, key, key)
        >>> same = word_map_output(query, key, key, source_query=query, source_key=key,
        ...     taken=torch.arange(3), factors=torch.ones(3))
        >>> bool(torch.allclose(plain, same, atol=1e-6))
        True
    """
    if int(taken.max()) >= source_key.shape[-2]:
        raise UsageError(
            "a word takes the map of a key that the source lacks",
            expected=f"below {source_key.shape[-2]}",
            got=int(taken.max()),
        )
    columns = torch.stack([taken.clamp_min(0), taken >= 0, factors], dim=0).to(query.device, non_blocking=True)
    index, swapped, weights = columns[0].long(), columns[1].bool(), columns[2].float()
    keys = max(key.shape[-2], source_key.shape[-2])
    block = max(memory_limit // (query.shape[0] * query.shape[1] * keys * 16), 1)
    found = torch.empty(*query.shape[:-1], value.shape[-1], dtype=value.dtype, device=value.device)
    for start in range(0, query.shape[-2], block):
        rows = slice(start, start + block)
        own = whole_map(query[..., rows, :], key, mask_of(mask, rows), scale)
        foreign = whole_map(source_query[..., rows, :], source_key, mask_of(source_mask, rows), scale)
        mixed = torch.where(swapped, foreign[..., index], own) * weights
        found[..., rows, :] = mixed.to(value.dtype) @ value
    return found
