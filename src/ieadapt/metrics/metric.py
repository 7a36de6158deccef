"""What a metric is: a function over the frames of a clip, with everything a reader needs to trust its number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.metrics.weights import PackagedWeights, UserWeights, WeightPaths

Frames = Float[Tensor, "frame channel height width"]
Aspect = Literal["structure", "consistency", "motion", "quality", "text"]
"""What of a video a metric speaks of."""
Better = Literal["higher", "lower", "context"]
"""Which way is better; `context` where neither is, so that the number is read beside others."""
Compares = Literal["pair", "single", "timed", "text"]
"""Whether the metric compares a video with a reference, reads one video alone, also asks how fast it is shown, or
compares it with its prompt."""
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


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics. It is called as its function is, and looks at clips and weights first.

    Attributes:
        function: frames (frame, channel, height, width) in [0, 1], float32 on the CPU, to a float. `pair` functions
            also take the reference, `timed` ones how many frames are shown per second, `text` ones the prompt; the
            last arguments are the files of `weights`.
        definition: what the number is, in one sentence.
        range: the values it can take.
        better: which way is better.
        source: where the definition comes from.
        cost: time on one core, and for which clip.
        aspect: what of a video it speaks of.
        least: the smallest clip it is defined on.
        compares: what it takes beside the frames.
        unit: of the number; empty for a plain ratio.
        weights: what it needs beside the core, weights as a rule; None for nothing.
    """

    function: Callable[..., float]
    definition: str
    range: str
    better: Better
    source: str
    cost: str
    aspect: Aspect
    least: ClipSize
    compares: Compares = "single"
    unit: str = ""
    weights: PackagedWeights | UserWeights | None = None

    def __post_init__(self) -> None:
        # a metric stands where its function stood: help() and doctest find the docstring there
        vars(self).update(__doc__=self.function.__doc__, __module__=self.function.__module__, __wrapped__=self.function)

    @property
    def name(self) -> str:
        """As in tables and on the command line."""
        return self.function.__name__

    def __repr__(self) -> str:
        return f"Metric({self.name})"

    def __call__(self, frames: Frames, *others: Any) -> float:
        """The number, for a clip and what the metric takes beside it.

        Raises:
            UsageError: the metric is not defined on the clip, or its weights are not there.
            FailureError: its weights cannot be read, or what it computes with fails.
        """
        check_clips((frames, *others) if self.compares == "pair" else (frames,), self.name, self.least)
        return self.function(frames, *others, *(self.weights.require(self.name) if self.weights else ()))

    def with_weights(self, paths: WeightPaths) -> Metric:
        """The metric with the weights that a user gives; metrics that take none are as they were."""
        if not isinstance(self.weights, UserWeights):
            return self
        return replace(self, weights=replace(self.weights, paths=paths))

    @property
    def available(self) -> bool:
        """Whether its weights, if it needs any, are there."""
        return self.weights is None or self.weights.available


def check_clips(clips: Sequence[Tensor], metric: str, least: ClipSize) -> None:
    """Refuse clips that a metric is not defined on.

    Args:
        clips: one clip, or a clip and its reference.
        metric: the name of the metric, for the error.
        least: the smallest clip it is defined on.

    Raises:
        UsageError: the sizes differ, not three channels, too few or too small frames, values that are not finite or
            outside [0, 1].
    """
    where = f"the metric {metric}"
    if len({clip.shape for clip in clips}) > 1:
        raise UsageError(
            "a clip and its reference have the same size",
            got=" and ".join(str(_size(clip)) for clip in clips),
            where=where,
            remedy="resize or trim one of them first",
        )
    for clip in clips:
        channels = clip.shape[1]
        if channels != 3:
            remedy = "drop the alpha channel" if channels == 4 else "repeat grey three times"
            raise UsageError("a clip has red, green and blue", got=f"{channels} channels", where=where, remedy=remedy)
        if any(has < needs for has, needs in zip(_size(clip), least, strict=True)):
            raise UsageError("the clip is too small", expected=f"at least {least}", got=_size(clip), where=where)
        low, high = (float(value) for value in torch.aminmax(clip))
        if math.isnan(low):
            raise UsageError("a clip holds NaN", where=where, remedy="generate it in float32")
        if low < -_TOLERANCE or high > 1 + _TOLERANCE:
            got = f"values from {low:g} to {high:g}"
            raise UsageError("colours are between 0 and 1", got=got, where=where, remedy="divide 8-bit frames by 255")


def luma(frames: Frames) -> Float[Tensor, "frame height width"]:
    """Brightness of each pixel, in [0, 1]: 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601).

    Example:
        >>> luma(torch.ones(1, 3, 1, 1)).item()
        1.0
    """
    return frames[:, 0] * _RED + frames[:, 1] * _GREEN + frames[:, 2] * _BLUE


def _size(clip: Tensor) -> ClipSize:
    return ClipSize(clip.shape[0], *clip.shape[2:])
