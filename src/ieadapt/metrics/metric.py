"""What a metric is: a function over frames, with everything a reader needs to trust its number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ieadapt.metrics.weights import GivenWeights, Places, Weights

Aspect = Literal["structure", "consistency", "motion", "quality", "text"]
"""What of a video a metric speaks of."""
Better = Literal["higher", "lower", "context"]
"""Which way is better; `context` where neither is, so that the number is read beside others."""
Compares = Literal["pair", "single", "timed", "text"]
"""Whether the metric compares a video with a reference, reads one video alone, also asks how fast it is shown, or
compares it with its prompt."""


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics; its page is the file that defines its function.

    Attributes:
        name: as in tables and on the command line.
        definition: what the number is, in one sentence.
        range: the values it can take.
        better: which way is better.
        unit: of the number; empty for a plain ratio.
        source: where the definition comes from.
        cost: time on one core, and for which clip.
        aspect: what of a video it speaks of.
        compares: `single` functions take the frames, `timed` ones the frames and how many are shown per second, `pair`
            functions the frames and their reference, `text` functions the frames and their prompt.
        function: frames (frame, channel, height, width) in [0, 1], float32 on the CPU, to a float; raises UsageError
            for clips it is not defined on.
        weights: what it needs beside the core, weights as a rule; None for nothing.
    """

    name: str
    definition: str
    range: str
    better: Better
    unit: str
    source: str
    cost: str
    aspect: Aspect
    compares: Compares
    function: Callable[..., float]
    weights: Weights | None = None

    def __repr__(self) -> str:
        return f"Metric({self.name})"

    def at(self, places: Places) -> Metric:
        """The metric with the weights that a user gives; metrics that take none are as they were."""
        if not isinstance(self.weights, GivenWeights):
            return self
        return replace(self, weights=self.weights.at(places), function=partial(self.function, places=places))

    @property
    def available(self) -> bool:
        """Whether its weights, if it needs any, are there."""
        return self.weights is None or self.weights.available
