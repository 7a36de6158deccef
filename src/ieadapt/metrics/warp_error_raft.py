"""Warp error with RAFT's flow: what still changes from frame to frame once motion is followed."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.backbones import place_of
from ieadapt.metrics.clips import check_clip
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.raft import LEAST, RAFT_WEIGHTS, WEIGHTS, raft_flow
from ieadapt.metrics.warp_error import mean_inside
from ieadapt.metrics.weights import NOWHERE, Places


def warp_error_raft(frames: Float[Tensor, "frame channel height width"], places: Places = NOWHERE) -> float:
    """As `warp_error`, along RAFT's flow in place of DIS, which follows large and small motions better.

    Returns:
        0 to 255; lower is more consistent.

    Raises:
        UsageError: fewer than two frames, frames under 128x128, not RGB in [0, 1], or no weights were given.
        FailureError: the weights cannot be read, or the flow leaves the frame everywhere.

    Source: Lai et al., Learning blind video temporal consistency, ECCV 2018 (there squared, with an occlusion mask and
    FlowNet 2); Teed and Deng, RAFT, ECCV 2020.
    """
    check_clip(frames, "warp_error_raft", LEAST)
    place = place_of(RAFT_WEIGHTS, places, "warp_error_raft")
    return mean_inside(frames, raft_flow(frames, place), "warp_error_raft")


WARP_ERROR_RAFT = Metric(
    name="warp_error_raft",
    definition="mean absolute difference between a frame and the next one brought back along RAFT's optical flow",
    range="0 to 255 (a still clip reads about 0)",
    better="lower",
    unit="255ths",
    source="after Lai et al., ECCV 2018, without an occlusion mask; RAFT, Teed and Deng, ECCV 2020",
    cost="15 s for 16 frames of 256x256",
    aspect="consistency",
    compares="single",
    function=warp_error_raft,
    weights=WEIGHTS,
)
