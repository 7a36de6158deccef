"""How spread out each head's attention is: entropy, entropy percentage, and their split into time, space and text."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import FailureError
from ieadapt.functional.logits import DEFAULT_MEMORY_LIMIT, Logits, RowMoments, row_moments
from ieadapt.functional.masks import HIDDEN_LOGIT, KeyMask, Mask
from ieadapt.functional.video_tokens import VideoTokens


@dataclass(frozen=True)
class AttentionStatistics:
    """Means over the query rows of one attention call, per batch entry and head; float32 (float64 for float64 inputs).

    `entropy` is in nats; `ep` is the entropy percentage 100 H / ln(keys of the row) in [0, 100]: 0 for a map that
    copies one token, 100 for a uniform one, 0 by definition where a row has one key. `n_keys` is the mean number of
    keys a row may attend to. With video tokens given, means over the video rows: `temporal_entropy` of the frame
    marginal and `spatial_entropy` within a frame given the frame, both of the map renormalised over the video keys
    (their sum is its entropy), `temporal_ep` and `spatial_ep` (percent of ln frames, of ln positions) and `text_mass`
    in [0, 1], the share of attention on keys that are not video. Without, these are None.
    """

    entropy: Float[Tensor, "batch head"]
    ep: Float[Tensor, "batch head"]
    n_keys: Float[Tensor, "batch head"]
    temporal_entropy: Float[Tensor, "batch head"] | None = None
    spatial_entropy: Float[Tensor, "batch head"] | None = None
    temporal_ep: Float[Tensor, "batch head"] | None = None
    spatial_ep: Float[Tensor, "batch head"] | None = None
    text_mass: Float[Tensor, "batch head"] | None = None


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
    n_queries, n_keys = query.shape[-2], key.shape[-2]
    logits = Logits(query, key, KeyMask(mask, is_causal, n_keys), scale, memory_limit)
    segments = (slice(0, n_keys),) if video is None else (video.slice, *video.text_slices(n_keys))
    video_rows = slice(0, 0) if video is None else video.rows(n_queries, n_keys)
    sums: dict[str, Tensor] = {}
    for block, values, counts in logits.blocks(slice(0, n_queries)):
        moments = [row_moments(values[..., segment]) for segment in segments]
        entropy, masses = _join(moments)
        _add(sums, _whole_row(entropy, counts, n_keys), block[:2], query)
        low, high = (min(max(edge - block.query.start, 0), values.shape[-2]) for edge in _edges(video_rows))
        if video is not None and low < high:
            if counts is not None:
                _check_video_rows(moments[0].logsumexp[..., low:high])
            part = _video_row(moments[0], masses, video, slice(low, high))
            _add(sums, part, block[:2], query)
    n_video = max(video_rows.stop - video_rows.start, 1)
    rows = {name: n_queries if name in _WHOLE else n_video for name in sums}
    means = {name: total / rows[name] for name, total in sums.items()}
    means.setdefault("n_keys", torch.full_like(means["ep"], n_keys))
    return AttentionStatistics(**means)


_WHOLE = ("entropy", "ep", "n_keys")


def _edges(span: slice) -> tuple[int, int]:
    return span.start, span.stop


def _add(sums: dict[str, Tensor], rows: dict[str, Tensor], where: tuple[slice, slice], like: Tensor) -> None:
    """Add each row statistic, summed over query rows, into its (batch, head) total."""
    for name, values in rows.items():
        if name not in sums:
            sums[name] = values.new_zeros(like.shape[:2])
        sums[name][where] += values.sum(dim=-1)


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


def _whole_row(entropy: Tensor, counts: Tensor | None, n_keys: int) -> dict[str, Tensor]:
    """Return the statistics of every row, its key count only where a mask decides it.

    A row of one key has no entropy, hence a percentage of 0.
    """
    if counts is None:
        return {"entropy": entropy, "ep": entropy * _percent_of(n_keys)}
    number = counts.to(entropy.dtype).expand_as(entropy)
    ep = 100 * entropy / number.clamp(min=2).log()
    return {"entropy": entropy, "ep": ep, "n_keys": number}


def _percent_of(n_keys: int) -> float:
    """Percent per nat where the most there can be is ln n_keys; 0 for one key, whose entropy is 0."""
    return 100 / log(n_keys) if n_keys > 1 else 0.0


def _check_video_rows(logsumexp: Tensor) -> None:
    if (logsumexp < HIDDEN_LOGIT / 2).any():
        raise FailureError(
            "the mask leaves a video row no video key",
            expected="at least one visible video key in every video row",
            where="attention_statistics",
            remedy="measure this site without video tokens",
        )


def _video_row(moment: RowMoments, masses: Tensor | None, video: VideoTokens, rows: slice) -> dict[str, Tensor]:
    """Split the entropy over video keys into that of the frame and that of the position given the frame."""
    frames = moment.weights[..., rows, :].unflatten(-1, (video.frames, video.positions)).sum(dim=-1)
    share = frames / frames.sum(dim=-1, keepdim=True)
    temporal = torch.special.entr(share).sum(dim=-1)
    spatial = (moment.entropy[..., rows] - temporal).clamp(min=0)
    return {
        "temporal_entropy": temporal,
        "spatial_entropy": spatial,
        "temporal_ep": temporal * _percent_of(video.frames),
        "spatial_ep": spatial * _percent_of(video.positions),
        "text_mass": torch.zeros_like(temporal) if masses is None else masses[1:, ..., rows].sum(dim=0),
    }
