"""What is measured of an attention call: the means over its query rows, and how they follow from the rows."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import FailureError


@dataclass(frozen=True)
class AttentionStatistics:
    """Means over the query rows of one attention call, per batch entry and head; float32 (float64 for float64 inputs).

    `entropy` is in nats; `ep` is the entropy percentage 100 H / ln(keys of the row) in [0, 100]: 0 for a map that
    copies one token, 100 for a uniform one, 0 by definition where a row has one key. `n_keys` is the mean number of
    keys a row may attend to. With video tokens given, means over the video rows: `temporal_entropy` of the frame
    marginal and `spatial_entropy` within a frame given the frame, both of the map renormalised over the video keys
    (their sum is its entropy), `temporal_ep` and `spatial_ep` (percent of ln frames, of ln positions) and `text_mass`
    in [0, 1], the share of attention on keys that are not video. Without, these are None. `ep_error` is the standard
    error of `ep` where it was measured on a sample of the rows, None where it is exact.
    """

    entropy: Float[Tensor, "batch head"]
    ep: Float[Tensor, "batch head"]
    n_keys: Float[Tensor, "batch head"]
    temporal_entropy: Float[Tensor, "batch head"] | None = None
    spatial_entropy: Float[Tensor, "batch head"] | None = None
    temporal_ep: Float[Tensor, "batch head"] | None = None
    spatial_ep: Float[Tensor, "batch head"] | None = None
    text_mass: Float[Tensor, "batch head"] | None = None
    ep_error: Float[Tensor, "batch head"] | None = None


WHOLE = ("entropy", "ep", "n_keys")
"""Statistics of every row; the others are of video rows only."""


def whole_rows(entropy: Tensor, counts: Tensor | None, n_keys: int) -> dict[str, Tensor]:
    """Return the statistics of every row from its entropy, its key count only where a mask decides it.

    A row of one key has no entropy, hence a percentage of 0.
    """
    if counts is None:
        return {"entropy": entropy, "ep": entropy * percent_of(n_keys)}
    number = counts.to(entropy.dtype).expand_as(entropy)
    ep = 100 * entropy / number.clamp(min=2).log()
    return {"entropy": entropy, "ep": ep, "n_keys": number}


def video_rows(temporal: Tensor, spatial: Tensor, text: Tensor, frames: int, positions: int) -> dict[str, Tensor]:
    """Return the statistics of video rows from their two entropies and their mass on text."""
    return {
        "temporal_entropy": temporal,
        "spatial_entropy": spatial,
        "temporal_ep": temporal * percent_of(frames),
        "spatial_ep": spatial * percent_of(positions),
        "text_mass": text,
    }


def percent_of(n_keys: int) -> float:
    """Percent per nat where the most there can be is ln n_keys; 0 for one key, whose entropy is 0."""
    return 100 / log(n_keys) if n_keys > 1 else 0.0


def no_video_key() -> FailureError:
    """The error of a mask that leaves a video row no video key."""
    return FailureError(
        "the mask leaves a video row no video key",
        expected="at least one visible video key in every video row",
        where="attention_statistics",
        remedy="measure this site without video tokens",
    )
