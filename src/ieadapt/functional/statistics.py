"""How spread out each head's attention is: entropy, entropy percentage, and their split into time, space and text."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.functional.entropies import WHOLE, AttentionStatistics
from ieadapt.functional.kernels import KernelChoice, fused_rows, uses_kernel
from ieadapt.functional.logits import DEFAULT_MEMORY_LIMIT, Logits
from ieadapt.functional.masks import KeyMask, Mask
from ieadapt.functional.row_sampling import RowSample, sampled_statistics
from ieadapt.functional.row_statistics import statistics_of_rows
from ieadapt.functional.streaming import row_blocks
from ieadapt.functional.video_tokens import VideoTokens

__all__ = ["AttentionStatistics", "attention_statistics"]


@torch.no_grad()
def attention_statistics(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    video: VideoTokens | None = None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
    sample: RowSample | None = None,
    kernel: KernelChoice | None = None,
) -> AttentionStatistics:
    """Measure the attention map softmax(scale * query . key + mask) exactly, without ever holding a whole map.

    Args:
        query: queries, after rotary embedding and normalisation; half precision is measured in float32.
        key: keys, as many heads as the queries: repeat grouped key heads (GQA) before the call.
        mask: boolean (True = attend) or additive, broadcastable to (batch, head, query, key). A key that is masked,
            or biased by -1e4 or less, does not count as a key.
        scale: factor of the products; None = 1 / sqrt(dim).
        is_causal: query i sees keys 0..i only.
        video: which keys are video, in a joint attention; their rows are meant where queries are the same tokens.
        memory_limit: bytes that temporaries may take together.
        sample: measure only a random part of the rows, with a standard error; None = all.
        kernel: whether the fused GPU kernel is used, see `ieadapt.functional.kernels`; None = as IEADAPT_KERNEL says.

    Raises:
        UsageError: shapes that do not fit, video tokens past the keys, a limit below one row of logits.
        FailureError: a row whose mask leaves no key, or a video row whose mask leaves no video key.

    Source: arXiv 2504.12027 (entropy of attention maps; the percentage is normalised by the row's own key count).

    Example:
        >>> import torch
        >>> query = torch.zeros(1, 2, 6, 4)  # equal logits: a uniform map
        >>> statistics = attention_statistics(query, query, video=VideoTokens(start=2, frames=2, positions=2))
        >>> statistics.ep.tolist()
        [[100.0, 100.0]]
        >>> statistics.text_mass  # 2 of 6 keys are text
        tensor([[0.3333, 0.3333]])
    """
    logits = Logits(query, key, KeyMask(mask, is_causal, key.shape[-2]), scale, memory_limit)
    if video is not None:
        video.text_slices(key.shape[-2])  # refuses video tokens past the keys
    fused = uses_kernel(
        query, key, None, mask=mask, scale=logits.factor, is_causal=is_causal, video=video, choice=kernel
    )
    blocks = None if sample is None else sample.blocks(query)
    if blocks is not None:
        return sampled_statistics(logits, video, blocks, fused)
    if fused:
        rows = fused_rows(query, key, None, mask=mask, scale=logits.factor, video=video)
        return statistics_of_rows(rows, logits, video)
    return _streamed_statistics(logits, video)


def _streamed_statistics(logits: Logits, video: VideoTokens | None) -> AttentionStatistics:
    n_queries, n_keys = logits.query.shape[-2], logits.key.shape[-2]
    rows = slice(0, 0) if video is None else video.rows(n_queries, n_keys)
    sums: dict[str, Tensor] = {}
    for block in row_blocks(logits, video, rows):
        for name, values in {**block.whole, **block.video}.items():
            if name not in sums:
                sums[name] = values.new_zeros(logits.query.shape[:2])
            sums[name][block.place[:2]] += values.sum(dim=-1)
    n_video = max(rows.stop - rows.start, 1)
    means = {name: total / (n_queries if name in WHOLE else n_video) for name, total in sums.items()}
    means.setdefault("n_keys", torch.full_like(means["ep"], n_keys))
    return AttentionStatistics(**means)
