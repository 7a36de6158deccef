"""Flicker: how much colours change from frame to frame, wherever the change comes from."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.clips import GREY_LEVELS, ClipSize, check_clip
from ieadapt.metrics.metric import Metric

LEAST = ClipSize(2, 1, 1)


def flicker(frames: Float[Tensor, "frame channel height width"]) -> float:
    """Mean absolute change of colour between neighbouring frames, in 255ths.

    Motion counts as change too: compare clips of the same motion, and read it beside `motion` and `warp_error` (which
    follows the motion first). VBench's temporal flickering is 1 - flicker / 255, on clips chosen to be still.

    Returns:
        0 (a still clip) to 255; lower is steadier.

    Raises:
        UsageError: fewer than two frames, or not RGB in [0, 1].

    Source: Huang et al., VBench, CVPR 2024 (temporal flickering).

    Example:
        >>> import torch
        >>> flicker(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4))
        255.0
    """
    check_clip(frames, "flicker", LEAST)
    return float(frames.diff(dim=0).abs().double().mean()) * GREY_LEVELS


FLICKER = Metric(
    name="flicker",
    definition="mean absolute change of colour between neighbouring frames, motion included",
    range="0 to 255 (a still clip reads 0)",
    better="lower",
    unit="255ths",
    source="VBench's temporal flickering, which is 1 - flicker / 255",
    cost="1 ms for 16 frames of 64x64",
    aspect="consistency",
    compares="single",
    function=flicker,
)
