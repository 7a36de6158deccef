"""An attention's output and what is measured of it: in one pass where the fused kernel runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.functional.energy import energy
from ieadapt.functional.entropies import AttentionStatistics
from ieadapt.functional.kernels import KernelChoice, fused_rows, uses_kernel
from ieadapt.functional.logits import DEFAULT_MEMORY_LIMIT, Logits
from ieadapt.functional.masks import KeyMask, Mask
from ieadapt.functional.row_sampling import RowSample
from ieadapt.functional.row_statistics import statistics_of_rows
from ieadapt.functional.statistics import attention_statistics
from ieadapt.functional.video_tokens import VideoTokens


@dataclass(frozen=True)
class MeasuredAttention:
    """An attention output with its entropy statistics and its energy, per batch entry and head."""

    output: Float[Tensor, "batch head query dim"]
    statistics: AttentionStatistics
    energy: Float[Tensor, "batch head"]


@torch.no_grad()
def measured_attention(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    value: Float[Tensor, "batch head key value_dim"],
    attend: Callable[[], Tensor],
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    video: VideoTokens | None = None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
    sample: RowSample | None = None,
    kernel: KernelChoice | None = None,
) -> MeasuredAttention:
    """Return the attention output and what `attention_statistics` and `energy` say of it.

    Where the fused kernel runs, and all rows are measured, it gives the output as well, as exact as PyTorch's
    attention in that type, and `attend` is not called. Everywhere else the output is what `attend` returns.

    Args:
        query: queries.
        key: keys.
        value: values.
        attend: computes the ordinary output.
        mask: boolean (True = attend) or additive, broadcastable to (batch, head, query, key).
        scale: factor of the products; None = 1 / sqrt(dim).
        video: the video tokens of a joint attention.
        memory_limit: bytes that temporaries may take together.
        sample: measure only a random part of the rows; None = all.
        kernel: whether the fused kernel is used; None = as IEADAPT_KERNEL says.

    Raises:
        UsageError: shapes that do not fit, video tokens past the keys, a limit below one row of logits.
        FailureError: a row whose mask leaves no key, or a video row whose mask leaves no video key.

    Example:
        >>> import torch
        >>> query = torch.zeros(1, 1, 4, 8)
        >>> measured = measured_attention(query, query, query, lambda: query)
        >>> round(measured.statistics.ep.item(), 3), measured.energy.item()
        (100.0, 0.0)
    """
    logits = Logits(query, key, KeyMask(mask, False, key.shape[-2]), scale, memory_limit)
    every_row = sample is None or sample.takes_all(query.shape[-2])
    if every_row and uses_kernel(
        query, key, value, mask=mask, scale=logits.factor, is_causal=False, video=video, choice=kernel
    ):
        if video is not None:
            video.text_slices(key.shape[-2])  # refuses video tokens past the keys
        rows = fused_rows(query, key, value, mask=mask, scale=logits.factor, video=video)
        assert rows.output is not None  # noqa: S101 - values were given
        return MeasuredAttention(rows.output, statistics_of_rows(rows, logits, video), rows["energy"].sum(-1))
    statistics = attention_statistics(
        query,
        key,
        mask=mask,
        scale=scale,
        video=video,
        memory_limit=memory_limit,
        sample=sample,
        kernel=kernel,
    )
    output = attend()
    return MeasuredAttention(output, statistics, energy(output))
