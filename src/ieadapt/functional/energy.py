"""Energy of an attention's output: how much of the signal a site carries."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def row_energy(output: Float[Tensor, "batch head query dim"]) -> Float[Tensor, "batch head query"]:
    """Return the energy ||(A V)_i||^2 of every row of an attention output, heads apart; >= 0."""
    dtype = torch.promote_types(output.dtype, torch.float32)
    return torch.linalg.vector_norm(output, dim=-1, dtype=dtype).square()


def energy(output: Float[Tensor, "batch head query dim"]) -> Float[Tensor, "batch head"]:
    """Return the energy sum ||(A V)_i||^2 of an attention output, over tokens and channels, heads apart; >= 0.

    Summed in float32 (float64 for float64 inputs), without a copy of the output.

    Source: arXiv 2504.12027 (energy of a layer; its share of the total over all sites follows from it).

    Example:
        >>> import torch
        >>> energy(torch.ones(1, 2, 3, 4, dtype=torch.float16)).tolist()
        [[12.0, 12.0]]
    """
    return row_energy(output).sum(dim=-1)
