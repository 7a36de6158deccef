"""The table of metrics, in the order in which they are shown: how to choose among them, and how to measure a clip."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.metrics import consistency, motion, quality, structure, text
from ieadapt.metrics.metric import USUAL_RATE, Frames, Metric
from ieadapt.metrics.weights import NO_PATHS, WeightPaths

METRICS: Mapping[str, Metric] = MappingProxyType(
    {metric.name: metric for page in (structure, consistency, motion, quality, text) for metric in page.METRICS}
)
"""Every metric by its name."""


def select_metrics(names: Sequence[str] | None = None, paths: WeightPaths = NO_PATHS) -> list[Metric]:
    """The metrics of these names.

    Args:
        names: names, or one string of names with commas; None for every metric whose weights are installed
            (`missing_metrics` lists the others).
        paths: where the weights are that only a user can give, by their keys.

    Returns:
        Each once, in the order of the names.

    Raises:
        UsageError: an unknown name (near names are given), no name at all, or weights that are not installed (the
            command that brings them is given).

    Example:
        >>> select_metrics(["ssim", "motion"])
        [Metric(ssim), Metric(motion)]
    """
    if names is None:
        return [metric for each in METRICS.values() if (metric := each.with_weights(paths)).available]
    parts = names.split(",") if isinstance(names, str) else names
    unique = list(dict.fromkeys(name.strip() for name in parts if name.strip()))
    if not unique:
        raise UsageError("the choice of metrics is empty", expected=", ".join(METRICS))
    for name in unique:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=3, cutoff=0.5)
            raise UsageError(
                f"there is no metric {name!r}",
                expected=f"a name such as {', '.join(near)}" if near else None,
                remedy=f"choose among {', '.join(METRICS)}",
            )
    chosen = [METRICS[name].with_weights(paths) for name in unique]
    for metric in chosen:
        if metric.weights is not None:
            metric.weights.require(metric.name)
    return chosen


def missing_metrics(paths: WeightPaths = NO_PATHS) -> list[Metric]:
    """The metrics whose weights are not there; `metric.weights.command` brings them."""
    return [metric for each in METRICS.values() if not (metric := each.with_weights(paths)).available]


def evaluate(
    frames: Frames,
    reference: Float[Tensor, "reference_frame reference_channel reference_height reference_width"] | None = None,
    metrics: Sequence[Metric] | Sequence[str] | None = None,
    *,
    reference_values: Mapping[str, float] | None = None,
    prompt: str | None = None,
    rate: float = USUAL_RATE,
) -> dict[str, float]:
    """Measure a clip, and how it differs from a reference where there is one.

    Args:
        frames: a clip in [0, 1], float32 on the CPU.
        reference: the clip to compare with; of the same size for the metrics that compare pairs.
        metrics: rows or names; None for every metric whose weights are installed.
        reference_values: what `evaluate(reference)` gave, to measure a reference of many clips only once.
        prompt: what the clip shows, for the metrics that compare with text; without one they are left out.
        rate: frames per second of both clips, for the metrics that ask how fast something moves.

    Returns:
        `NAME` for each metric of one clip, and with a reference also `NAME_change`, the clip's value less the
        reference's; `NAME` for each metric that compares a pair, only where there is a reference. Metrics of text and
        timed ones count as those of one clip.

    Raises:
        UsageError: a metric is unknown or refuses the clip, or all of the metrics need a reference and there is none.

    Example:
        >>> import torch
        >>> evaluate(torch.zeros(2, 3, 16, 24), torch.ones(2, 3, 16, 24), ["psnr", "flicker"])
        {'psnr': 0.0, 'flicker': 0.0, 'flicker_change': 0.0}
    """
    rows = select_metrics() if metrics is None else metrics
    chosen = [select_metrics([row])[0] if isinstance(row, str) else row for row in rows]
    if reference is None and chosen and all(metric.compares == "pair" for metric in chosen):
        raise UsageError(
            "these metrics compare two clips",
            got=", ".join(metric.name for metric in chosen),
            remedy="pass a reference",
        )
    beside: dict[str, tuple[Any, ...]] = {"pair": (reference,), "single": (), "timed": (rate,), "text": (prompt,)}
    known, values = reference_values or {}, dict[str, float]()
    for metric in chosen:
        name, others = metric.name, beside[metric.compares]
        if any(other is None for other in others):
            continue
        values[name] = metric(frames, *others)
        if reference is not None and metric.compares != "pair":
            values[f"{name}_change"] = values[name] - (known[name] if name in known else metric(reference, *others))
    return values
