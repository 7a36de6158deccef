"""Motion: how far the picture moves from frame to frame."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.clips import check_clip
from ieadapt.metrics.flow import LEAST, optical_flow
from ieadapt.metrics.metric import Metric


def motion(frames: Float[Tensor, "frame channel height width"]) -> float:
    """Mean length of the optical flow, over pixels and neighbouring frames, in pixels of this clip per frame.

    Camera and objects both count; so does jitter. Flat areas show no motion: what the flow says there comes
    from their surroundings.

    Returns:
        0 (a still clip) upwards; neither way is better by itself, but a method that lowers it freezes the video.

    Raises:
        UsageError: fewer than two frames, frames under 12x12, or not RGB in [0, 1].

    Source: VBench's dynamic degree asks the same of RAFT's flow; here the flow is DIS and the mean is over all pixels.

    Example:
        >>> import torch
        >>> motion(torch.zeros(2, 3, 16, 24))
        0.0
    """
    check_clip(frames, "motion", LEAST)
    return float(optical_flow(frames).norm(dim=1).double().mean())


MOTION = Metric(
    name="motion",
    definition="mean length of the optical flow (DIS) between neighbouring frames",
    range="0 upwards (a still clip reads 0)",
    better="context",
    unit="pixels per frame",
    source="OpenCV DIS (Kroeger et al., ECCV 2016); after VBench's dynamic degree",
    cost="0.1 s for 16 frames of 64x64",
    aspect="motion",
    compares="single",
    function=motion,
)
