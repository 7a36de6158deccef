"""Warp error: what still changes from frame to frame once motion is followed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import FailureError
from ieadapt.metrics.clips import GREY_LEVELS, check_clip
from ieadapt.metrics.flow import LEAST, optical_flow
from ieadapt.metrics.metric import Metric


def warp_error(frames: Float[Tensor, "frame channel height width"]) -> float:
    """Mean absolute difference between a frame and the next one brought back along the optical flow, in 255ths.

    Pixels whose flow leaves the frame are left out. Pixels that become hidden are not: a mask of those would also hide
    the damage that flow cannot follow, so a sound clip with moving objects does not read 0. A still clip does: read it
    beside `motion`. Jitter of the whole frame is motion, which flow follows: see it in `motion` and `flicker`.

    Returns:
        0 to 255; lower is more consistent.

    Raises:
        UsageError: fewer than two frames, frames under 12x12, or not RGB in [0, 1].
        FailureError: the flow leaves the frame everywhere.

    Source: Lai et al., Learning blind video temporal consistency, ECCV 2018 (there squared, with an occlusion mask and
    FlowNet 2; here absolute, without a mask, with DIS).

    Example:
        >>> warp_error(torch.full((2, 3, 16, 24), 0.5))
        0.0
    """
    check_clip(frames, "warp_error", LEAST)
    return mean_inside(frames, optical_flow(frames), "warp_error")


def mean_inside(
    frames: Float[Tensor, "frame channel height width"], flow: Float[Tensor, "pair vector height width"], metric: str
) -> float:
    """Mean of `warped_difference` where the flow stays inside the frame, in 255ths, for the metric of this name.

    Raises:
        FailureError: it stays inside nowhere.
    """
    difference, inside = warped_difference(frames, flow)
    if not inside.any():
        raise FailureError("the optical flow leaves the frame everywhere", where=f"the metric {metric}")
    return float(difference[inside].double().mean()) * GREY_LEVELS


def warped_difference(
    frames: Float[Tensor, "frame channel height width"], flow: Float[Tensor, "pair vector height width"]
) -> tuple[Float[Tensor, "pair height width"], torch.Tensor]:
    """Absolute difference between each frame and the next one sampled where the flow points, and where that is inside.

    Args:
        frames: a clip in [0, 1].
        flow: displacement until the next frame, in pixels: right, then down; one field fewer than frames.

    Returns:
        The difference, mean over channels, in [0, 1]; and a Boolean mask (pair, height, width) of the targets inside.
    """
    height, width = frames.shape[-2:]
    column = torch.arange(width, dtype=flow.dtype) + flow[:, 0]
    row = torch.arange(height, dtype=flow.dtype)[:, None] + flow[:, 1]
    inside = (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
    grid = torch.stack((2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1), dim=-1)
    brought_back = F.grid_sample(frames[1:], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return (brought_back - frames[:-1]).abs().mean(dim=1), inside


WARP_ERROR = Metric(
    name="warp_error",
    definition="mean absolute difference between a frame and the next one brought back along the optical flow (DIS)",
    range="0 to 255 (a still clip reads 0)",
    better="lower",
    unit="255ths",
    source="after Lai et al., ECCV 2018, without an occlusion mask; OpenCV DIS (Kroeger et al., ECCV 2016)",
    cost="0.1 s for 16 frames of 64x64",
    aspect="consistency",
    compares="single",
    function=warp_error,
)
