"""A random part of the query rows, and the standard error of a mean over it: nearly free beside plain attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.notation import parse_term

ROW_FORMS = ("all", "sample:FRACTION")
BLOCK = 64
"""Neighbouring query rows that are drawn together."""


@dataclass(frozen=True)
class RowSample:
    """Blocks of query rows drawn at random, one from each of as many equal parts of the sequence, heads apart.

    Attributes:
        fraction: part of the rows, in (0, 1); at least two blocks of 64 rows are taken.
        seed: of the draw; the global random state is left alone.

    Raises:
        UsageError: a fraction outside (0, 1).

    Example:
        >>> import torch
        >>> RowSample(0.25).blocks(torch.zeros(1, 2, 64 * 8, 4)).shape  # 2 of 8 blocks for each of 2 heads
        torch.Size([1, 2, 2])
    """

    fraction: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise UsageError("not a part of the rows", expected="0 < fraction < 1", got=self.fraction, where="rows")

    def takes_all(self, n_queries: int) -> bool:
        """Whether a sequence is so short that every row is measured."""
        return self._taken(n_queries) >= -(-n_queries // BLOCK)

    def _taken(self, n_queries: int) -> int:
        return max(round(self.fraction * -(-n_queries // BLOCK)), 2)

    def blocks(self, query: Float[Tensor, "batch head query dim"]) -> Int[Tensor, "batch head block"] | None:
        """Draw the numbers of the blocks, or None where the sequence is so short that all are taken."""
        batch, heads, n_queries, _ = query.shape
        if self.takes_all(n_queries):
            return None
        number, taken = -(-n_queries // BLOCK), self._taken(n_queries)
        generator = torch.Generator(query.device).manual_seed(self.seed)
        draws = torch.rand((batch, heads, taken), generator=generator, device=query.device, dtype=torch.float64)
        parts = torch.arange(taken, device=query.device)
        return ((parts + draws) * (number / taken)).to(torch.int32).clamp(max=number - 1)


def row_sample(rows: str) -> RowSample | None:
    """Read which rows are measured: "all" (None), or "sample:FRACTION".

    Raises:
        UsageError: anything else.

    Example:
        >>> row_sample("sample:0.05")
        RowSample(fraction=0.05, seed=0)
    """
    _, numbers = parse_term(rows, ROW_FORMS, "choice of rows")
    return RowSample(numbers[0]) if numbers else None


def rows_of_blocks(blocks: Int[Tensor, "batch head block"]) -> Int[Tensor, "batch head row"]:
    """Return the numbers of the rows of some blocks; those of a last, shorter block reach past the end."""
    return (blocks[..., None] * BLOCK + torch.arange(BLOCK, device=blocks.device)).flatten(-2)


def standard_error(ep: Tensor, there: Tensor, mean: Tensor, n_queries: int) -> Tensor:
    """Return the standard error of a mean over rows in blocks, one from each part of the sequence.

    It comes from second differences of neighbouring blocks (Wolter, Introduction to Variance Estimation, chapter 8):
    each block is drawn from its own part of the sequence, so that a trend along the sequence is no error of the mean.

    Args:
        ep: of every drawn row.
        there: which of them count.
        mean: the mean over these.
        n_queries: rows of the whole sequence.
    """
    rows = there.unflatten(-1, (-1, BLOCK)).sum(-1).to(ep.dtype)
    sums = torch.where(there, ep - mean[..., None], 0.0).unflatten(-1, (-1, BLOCK)).sum(-1)
    taken = rows.shape[-1]
    order, weight = (2, 6) if taken > 2 else (1, 2)
    apart = (sums / rows.mean(-1, keepdim=True)).diff(n=order)
    left = 1 - taken / -(-n_queries // BLOCK)
    return (apart.square().mean(-1) / weight * left / taken).sqrt()
