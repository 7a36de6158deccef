"""Entropy of every row on any device, in plain PyTorch: logits in blocks of query rows, none of them kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ieadapt.functional.entropies import no_video_key, video_rows, whole_rows
from ieadapt.functional.logits import Logits, RowMoments, row_moments
from ieadapt.functional.masks import HIDDEN_LOGIT, Block
from ieadapt.functional.video_tokens import VideoTokens


class RowBlock(NamedTuple):
    """Statistics of a block of query rows, and of the video rows among them (empty where there are none)."""

    place: Block
    whole: dict[str, Tensor]
    video: dict[str, Tensor]


def row_blocks(logits: Logits, video: VideoTokens | None, rows: slice) -> Iterator[RowBlock]:
    """Yield the statistics of all query rows, block by block.

    Args:
        logits: the call.
        video: which keys are video.
        rows: which query rows are.

    Raises:
        FailureError: a row whose mask leaves no key, or a video row whose mask leaves no video key.
    """
    n_queries, n_keys = logits.query.shape[-2], logits.key.shape[-2]
    segments = (slice(0, n_keys),) if video is None else (video.slice, *video.text_slices(n_keys))
    for block, values, counts in logits.blocks(slice(0, n_queries)):
        moments = [row_moments(values[..., segment]) for segment in segments]
        entropy, masses = _join(moments)
        low, high = (min(max(edge - block.query.start, 0), values.shape[-2]) for edge in (rows.start, rows.stop))
        part: dict[str, Tensor] = {}
        if video is not None and low < high:
            if counts is not None and (moments[0].logsumexp[..., low:high] < HIDDEN_LOGIT / 2).any():
                raise no_video_key()
            part = _video_rows(moments[0], masses, video, slice(low, high))
        yield RowBlock(block, whole_rows(entropy, counts, n_keys), part)


def _join(moments: list[RowMoments]) -> tuple[Tensor, Tensor | None]:
    """Join a row's segments by the chain rule: its entropy, and each segment's mass (None where there is but one).

    The entropy is that of the masses plus the sum of mass times entropy within the segment.
    """
    if len(moments) == 1:
        return moments[0].entropy, None
    logsumexps = torch.stack([moment.logsumexp for moment in moments])
    log_masses = logsumexps - logsumexps.logsumexp(dim=0)
    masses = log_masses.exp()
    entropies = torch.stack([moment.entropy for moment in moments])
    return (masses * (entropies - log_masses)).sum(dim=0), masses


def _video_rows(moment: RowMoments, masses: Tensor | None, video: VideoTokens, rows: slice) -> dict[str, Tensor]:
    """Split the entropy over video keys into that of the frame and that of the position given the frame."""
    frames = moment.weights[..., rows, :].unflatten(-1, (video.frames, video.positions)).sum(dim=-1)
    share = frames / frames.sum(dim=-1, keepdim=True)
    temporal = torch.special.entr(share).sum(dim=-1)
    spatial = (moment.entropy[..., rows] - temporal).clamp(min=0)
    text = torch.zeros_like(temporal) if masses is None else masses[1:, ..., rows].sum(dim=0)
    return video_rows(temporal, spatial, text, video.frames, video.positions)
