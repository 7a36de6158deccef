"""From the fused kernel's figures of every row to the statistics of a call."""

from __future__ import annotations

import torch
from torch import Tensor

from ieadapt.functional.entropies import AttentionStatistics, no_video_key, video_rows, whole_rows
from ieadapt.functional.kernels import FusedRows
from ieadapt.functional.logits import Logits
from ieadapt.functional.masks import Block, check_rows
from ieadapt.functional.video_tokens import VideoTokens


def statistics_of_rows(rows: FusedRows, logits: Logits, video: VideoTokens | None) -> AttentionStatistics:
    """Return the means over all query rows of a call that the kernel has run.

    Args:
        rows: the kernel's figures, of every row.
        logits: the call.
        video: its video tokens.

    Raises:
        FailureError: a row whose mask leaves no key, or a video row whose mask leaves no video key.
    """
    n_queries, n_keys = logits.query.shape[-2], logits.key.shape[-2]
    span = slice(0, n_queries) if video is None else video.rows(n_queries, n_keys)
    counts = None
    if logits.mask.hides:
        check_keys(rows, video, span)
        counts = rows["keys"]
    whole = whole_rows(rows["entropy"] if counts is not None else rows["entropy"].mean(-1), counts, n_keys)
    means = {name: values.mean(-1) if counts is not None else values for name, values in whole.items()}
    if video is not None:
        temporal, spatial, text = rows.figures[3:6, ..., span].mean(-1)
        means |= video_rows(temporal, spatial, text, video.frames, video.positions)
    means.setdefault("n_keys", torch.full_like(means["ep"], n_keys))
    return AttentionStatistics(**means)


def check_keys(
    rows: FusedRows,
    video: VideoTokens | None,
    span: slice | Tensor,
    read: Tensor | None = None,
) -> None:
    """Raise unless the mask leaves every row a key, and every video row a video key.

    Args:
        rows: the kernel's figures.
        video: the video tokens.
        span: which rows are video.
        read: which rows there are, None = all.

    Raises:
        FailureError: naming the first row without.
    """
    seeing = rows["keys"] > 0
    if read is not None:
        seeing |= ~read
    check_rows(seeing, Block(slice(0, None), slice(0, None), slice(0, None)))
    if video is not None and (rows["video_keys"][..., span] == 0).any():
        raise no_video_key()
