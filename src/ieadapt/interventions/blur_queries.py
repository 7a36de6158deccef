"""Blurred queries: neighbouring tokens ask almost the same question. Smoothed-energy guidance's weak map."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.attention.layouts import TokenLayout
from ieadapt.errors import UsageError
from ieadapt.interventions.perturbation import QueryPerturbation


@dataclass(frozen=True, repr=False)
class BlurQueries(QueryPerturbation):
    """Blur the video queries with a Gaussian over their grid: rows and columns of each frame, or frames.

    Where a call holds one position over time (temporal attention) the blur runs over frames; everywhere else it runs
    over the rows and columns of each frame, never across frames. Text queries stay.

    Attributes:
        sigma: standard deviation in tokens; `inf` gives every query of the grid the mean query.

    Raises:
        UsageError: sigma not positive, or a model whose token layout is not known.

    Source: SEG (arXiv 2408.00760), kernel of 6 sigma with reflected borders as in its code; the layout over frames and
    the scopes on joint attention are ours.

    Example:
        >>> BlurQueries(1)
        BlurQueries(1, scope='video')
    """

    sigma: int | float

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise UsageError("the width of a blur must be positive", expected="> 0", got=self.sigma)

    def changed(self, query: Tensor, layout: TokenLayout, call: AttentionCall) -> Tensor:
        """The blurred queries."""
        grid = query.unflatten(2, (layout.frames, layout.height, layout.width))
        axes = (2,) if call.site.kind == "temporal" else (3, 4)
        for axis in axes:
            weights = blur_matrix(grid.shape[axis], self.sigma).to(grid)
            grid = torch.tensordot(grid, weights, dims=([axis], [1])).movedim(-1, axis)
        return grid.flatten(2, 4)


def blur_matrix(size: int, sigma: float) -> Float[Tensor, "size size"]:
    """A Gaussian blur of a line of tokens as a matrix: kernel of 6 sigma, borders reflected, rows add up to 1.

    Example:
        >>> blur_matrix(2, float("inf")).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    if math.isinf(sigma) or size == 1:
        return torch.full((size, size), 1 / size)
    reach = (math.ceil(6 * sigma) + 1 - math.ceil(6 * sigma) % 2) // 2
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    period = 2 * (size - 1)
    folded = (torch.arange(size)[:, None] + offsets) % period
    source = torch.minimum(folded, period - folded)
    return torch.zeros(size, size).scatter_add_(1, source, (kernel / kernel.sum()).expand(size, -1))
