"""Temporal information: how much brightness changes over the picture at the liveliest moment."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.clips import GREY_LEVELS, ClipSize, check_clip, luma
from ieadapt.metrics.metric import Metric

LEAST = ClipSize(2, 1, 1)


def temporal_information(frames: Float[Tensor, "frame channel height width"]) -> float:
    """Largest standard deviation, over the picture, of the change of brightness between neighbouring frames.

    The usual figure for how lively a video is, from which test clips are chosen. A cut sets it alone. ffmpeg's
    `siti` gives the same, up to its rounding of brightness to 8 bits.

    Returns:
        0 (a still clip, or one that only fades as a whole) to 255; neither way is better by itself.

    Raises:
        UsageError: fewer than two frames, or not RGB in [0, 1].

    Source: ITU-T P.910 (2008), section 5.3.2.

    Example:
        >>> import torch
        >>> clip = torch.zeros(2, 3, 2, 2)
        >>> clip[1, :, 0] = 1.0
        >>> round(temporal_information(clip), 1)
        127.5
    """
    check_clip(frames, "temporal_information", LEAST)
    changes = luma(frames.double()).diff(dim=0) * GREY_LEVELS
    return float(changes.std(dim=(1, 2), correction=0).max())


TEMPORAL_INFORMATION = Metric(
    name="temporal_information",
    definition="largest deviation over the picture of the change of brightness between neighbouring frames (TI)",
    range="0 to 255 (a still clip reads 0)",
    better="context",
    unit="255ths",
    source="ITU-T P.910 (2008)",
    cost="2 ms for 16 frames of 64x64",
    aspect="motion",
    compares="single",
    function=temporal_information,
)
