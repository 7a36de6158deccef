"""Entropy of a random part of the query rows, with its standard error: nearly free beside an untouched attention."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.functional.entropies import WHOLE, AttentionStatistics, video_rows, whole_rows
from ieadapt.functional.kernels import fused_rows
from ieadapt.functional.logits import Logits
from ieadapt.functional.masks import KeyMask
from ieadapt.functional.row_statistics import check_keys
from ieadapt.functional.streaming import row_blocks
from ieadapt.functional.video_tokens import VideoTokens

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
    rule, _, amount = rows.partition(":")
    if rows == "all":
        return None
    try:
        fraction = float(amount) if rule == "sample" else float("nan")
    except ValueError:
        fraction = float("nan")
    if fraction != fraction:
        raise UsageError("no such choice of rows", expected='"all" or "sample:FRACTION"', got=rows, where="rows")
    return RowSample(fraction)


def sampled_statistics(
    logits: Logits, video: VideoTokens | None, blocks: Int[Tensor, "batch head block"], fused: bool
) -> AttentionStatistics:
    """Estimate the statistics of a call from some blocks of its query rows.

    The standard error comes from second differences of neighbouring blocks (Wolter, Introduction to Variance
    Estimation, chapter 8): each block is drawn from its own part of the sequence, so that a trend along the sequence is
    no error of the mean.

    Args:
        logits: the call.
        video: its video tokens.
        blocks: numbers of the blocks of each batch entry and head.
        fused: whether the kernel computes them.

    Raises:
        FailureError: a row whose mask leaves no key, or a video row whose mask leaves no video key.
    """
    n_queries, n_keys = logits.query.shape[-2], logits.key.shape[-2]
    index = (blocks[..., None] * BLOCK + torch.arange(BLOCK, device=blocks.device)).flatten(-2)
    there = index < n_queries
    span = slice(0, 0) if video is None else video.rows(n_queries, n_keys)
    on_video = there & (index >= span.start) & (index < span.stop)
    rows = (_fused if fused else _streamed)(logits, video, blocks, index, there, on_video)
    of_video = rows.keys() - set(WHOLE)
    means = _means(rows, rows.keys() - of_video, there) | _means(rows, of_video, on_video)
    means.setdefault("n_keys", torch.full_like(means["ep"], n_keys))
    error = _standard_error(rows["ep"], there, means["ep"], n_queries)
    return AttentionStatistics(**means, ep_error=error)


def _fused(
    logits: Logits, video: VideoTokens | None, blocks: Tensor, index: Tensor, there: Tensor, on_video: Tensor
) -> dict[str, Tensor]:
    rows = fused_rows(
        logits.query, logits.key, None, mask=logits.mask.tensor, scale=logits.factor, video=video, chosen=blocks
    )
    counts = None
    if logits.mask.hides:
        check_keys(rows, video, on_video, there)
        counts = rows["keys"]
    found = whole_rows(rows["entropy"], counts, logits.key.shape[-2])
    if video is not None:
        found |= video_rows(rows["temporal"], rows["spatial"], rows["text"], video.frames, video.positions)
    return found


def _streamed(
    logits: Logits, video: VideoTokens | None, blocks: Tensor, index: Tensor, there: Tensor, on_video: Tensor
) -> dict[str, Tensor]:
    within = index.clamp(max=logits.query.shape[-2] - 1).long()
    query = logits.query.gather(2, within[..., None].expand(*within.shape, logits.query.shape[-1]))
    mask = _mask_of_rows(logits.mask, within)
    part = Logits(query, logits.key, mask, logits.scale, logits.memory_limit)
    found: dict[str, Tensor] = {}
    for block in row_blocks(part, video, slice(0, 0 if video is None else within.shape[-1])):
        for name, values in {**block.whole, **block.video}.items():
            if name not in found:
                found[name] = values.new_empty(within.shape)
            found[name][block.place] = values
    return found


def _mask_of_rows(mask: KeyMask, index: Tensor) -> KeyMask:
    """The mask of some query rows; a causal one becomes a tensor, since rows no longer stand in order."""
    if not mask.per_query:
        return mask
    shape = (*index.shape, mask.n_keys)
    kept = None
    if mask.tensor is not None:
        four = mask.tensor[(None,) * (4 - mask.tensor.ndim)].expand(*index.shape[:2], -1, mask.n_keys)
        rows = index if four.shape[2] > 1 else torch.zeros_like(index)
        kept = four.gather(2, rows[..., None].expand(shape))
    if mask.is_causal:
        past = index[..., None] >= torch.arange(mask.n_keys, device=index.device)
        if kept is None or kept.dtype == torch.bool:
            kept = past if kept is None else kept & past
        else:
            kept = kept.masked_fill(~past, -torch.inf)
    return KeyMask(kept, False, mask.n_keys)


def _means(rows: Mapping[str, Tensor], names: Collection[str], counted: Tensor) -> dict[str, Tensor]:
    """Means of some figures over the rows that count, all at once: a GPU takes as long for one as for all."""
    if not names:
        return {}
    sums = torch.where(counted, torch.stack([rows[name] for name in names]), 0.0).sum(-1)
    return dict(zip(names, sums / counted.sum(-1), strict=True))


def _standard_error(ep: Tensor, there: Tensor, mean: Tensor, n_queries: int) -> Tensor:
    """The standard error of a mean over rows in blocks, one from each part of the sequence; the last may be shorter."""
    rows = there.unflatten(-1, (-1, BLOCK)).sum(-1).to(ep.dtype)
    sums = torch.where(there, ep - mean[..., None], 0.0).unflatten(-1, (-1, BLOCK)).sum(-1)
    taken = rows.shape[-1]
    order, weight = (2, 6) if taken > 2 else (1, 2)
    apart = (sums / rows.mean(-1, keepdim=True)).diff(n=order)
    left = 1 - taken / -(-n_queries // BLOCK)
    return (apart.square().mean(-1) / weight * left / taken).sqrt()
