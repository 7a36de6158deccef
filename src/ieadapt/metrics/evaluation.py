"""Evaluate a clip: every chosen metric, alone and against a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.metrics.clips import USUAL_RATE
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.table import select_metrics


def evaluate(
    frames: Float[Tensor, "frame channel height width"],
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
    chosen = select_metrics() if metrics is None else [_row(metric) for metric in metrics]
    if reference is None and chosen and all(metric.compares == "pair" for metric in chosen):
        raise UsageError(
            "these metrics compare two clips",
            got=", ".join(metric.name for metric in chosen),
            remedy="pass a reference",
        )
    known, values = dict(reference_values or {}), dict[str, float]()
    for metric in chosen:
        if metric.compares == "pair":
            values |= {} if reference is None else {metric.name: metric.function(frames, reference)}
            continue
        told = _told(metric, prompt, rate)
        if told is None:
            continue
        values[metric.name] = metric.function(frames, *told)
        if reference is not None:
            before = known[metric.name] if metric.name in known else metric.function(reference, *told)
            values[f"{metric.name}_change"] = values[metric.name] - before
    return values


def _told(metric: Metric, prompt: str | None, rate: float) -> tuple[str | float, ...] | None:
    """What a metric takes beside the frames; None where it compares with text and there is none."""
    if metric.compares == "text":
        return None if prompt is None else (prompt,)
    return (rate,) if metric.compares == "timed" else ()


def _row(metric: Metric | str) -> Metric:
    return select_metrics([metric])[0] if isinstance(metric, str) else metric
