"""Cross-frame intensity: how much the frames of a video look at each other. Enhance-A-Video's measure."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.functional.logits import DEFAULT_MEMORY_LIMIT


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
