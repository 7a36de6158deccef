"""What a clip must be before a metric reads it, and the grey picture that several metrics look at."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError

GREY_LEVELS = 255.0
"""Differences of colour are given in 255ths of the range."""
USUAL_RATE = 8.0
"""Frames per second of a clip that does not say; that of most video models, and VBench's."""
_TOLERANCE = 1e-4
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114


class ClipSize(NamedTuple):
    """Number of frames, and pixels of a frame."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames} frame{'s' if self.frames > 1 else ''} of {self.width}x{self.height} pixels"


def check_clip(frames: Float[Tensor, "frame channel height width"], metric: str, least: ClipSize) -> None:
    """Refuse a clip that a metric is not defined on.

    Args:
        frames: the clip.
        metric: the name of the metric, for the error.
        least: the smallest clip it is defined on.

    Raises:
        UsageError: not three channels, too few or too small frames, values that are not finite or outside [0, 1].
    """
    count, channels, height, width = frames.shape
    where = f"the metric {metric}"
    if channels != 3:
        remedy = "drop the alpha channel" if channels == 4 else "repeat grey three times"
        raise UsageError("a clip has red, green and blue", got=f"{channels} channels", where=where, remedy=remedy)
    size = ClipSize(count, height, width)
    if any(has < needs for has, needs in zip(size, least, strict=True)):
        raise UsageError("the clip is too small", expected=f"at least {least}", got=size, where=where)
    low, high = (float(value) for value in torch.aminmax(frames))
    if math.isnan(low):
        raise UsageError("a clip holds NaN", where=where, remedy="generate it in float32")
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        got = f"values from {low:g} to {high:g}"
        raise UsageError("colours are between 0 and 1", got=got, where=where, remedy="divide 8-bit frames by 255")


def check_pair(
    frames: Float[Tensor, "frame channel height width"],
    reference: Float[Tensor, "reference_frame reference_channel reference_height reference_width"],
    metric: str,
    least: ClipSize,
) -> None:
    """Refuse two clips that cannot be compared; arguments and errors as of `check_clip`.

    Raises:
        UsageError: the sizes differ, or `check_clip` refuses one of the two.
    """
    if frames.shape != reference.shape:
        shapes = (ClipSize(shape[0], shape[2], shape[3]) for shape in (frames.shape, reference.shape))
        raise UsageError(
            "a clip and its reference have the same size",
            got=" and ".join(str(shape) for shape in shapes),
            where=f"the metric {metric}",
            remedy="resize or trim one of them first",
        )
    check_clip(frames, metric, least)
    check_clip(reference, metric, least)


def luma(frames: Float[Tensor, "frame channel height width"]) -> Float[Tensor, "frame height width"]:
    """Brightness of each pixel, in [0, 1]: 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601).

    Example:
        >>> luma(torch.ones(1, 3, 1, 1)).item()
        1.0
    """
    return frames[:, 0] * _RED + frames[:, 1] * _GREEN + frames[:, 2] * _BLUE
