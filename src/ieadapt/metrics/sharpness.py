"""Sharpness: how much fine detail the frames hold, of whatever kind."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ieadapt.metrics.clips import GREY_LEVELS, ClipSize, check_clip, luma
from ieadapt.metrics.metric import Metric

LEAST = ClipSize(1, 3, 3)
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def sharpness(frames: Float[Tensor, "frame channel height width"]) -> float:
    """Variance of the Laplacian of a frame's brightness in 255ths, border pixels left out; mean over frames.

    Blur lowers it. Noise raises it as detail does, and so does a busier picture: it says that detail changed, not
    whether that is better.

    Returns:
        0 (a plain ramp or flat colour) upwards, in squared 255ths; neither way is better by itself.

    Raises:
        UsageError: frames under 3x3, or not RGB in [0, 1].

    Source: Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000.

    Example:
        >>> board = (torch.arange(8)[:, None] + torch.arange(8)) % 2.0
        >>> sharpness(board.expand(1, 3, 8, 8)) > sharpness(torch.full((1, 3, 8, 8), 0.5))
        True
    """
    check_clip(frames, "sharpness", LEAST)
    grey = luma(frames.double())[:, None] * GREY_LEVELS
    response = F.conv2d(grey, torch.tensor(_LAPLACIAN, dtype=grey.dtype)[None, None])
    return float(response.var(dim=(1, 2, 3), correction=0).mean())


SHARPNESS = Metric(
    name="sharpness",
    definition="variance of the Laplacian of brightness, mean over frames; detail and noise both raise it",
    range="0 upwards (a flat picture reads 0)",
    better="context",
    unit="squared 255ths",
    source="Pech-Pacheco et al., ICPR 2000",
    cost="2 ms for 16 frames of 64x64",
    aspect="quality",
    compares="single",
    function=sharpness,
)
