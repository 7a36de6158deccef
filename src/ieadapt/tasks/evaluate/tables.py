"""Tables of scores: means with intervals, paired differences, and what could not be measured.

`MetricSummary` is one metric over any videos; `Comparison` one testbed score of plain and enhanced videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ieadapt.metrics import Metric
from ieadapt.metrics.intervals import mean_interval, paired_interval
from ieadapt.runs.report import Table
from ieadapt.testbed import SceneScore

ENOUGH = 20
"""With fewer pairs than this, a bootstrap interval is too narrow to conclude from."""

Better = Literal["higher", "lower"]

MEASURES: Mapping[str, tuple[str, Better]] = {
    "accuracy": ("", "higher"),
    "presence": ("", "higher"),
    "binding": ("", "higher"),
    "count": ("", "higher"),
    "shape": ("", "higher"),
    "size": ("", "higher"),
    "motion": ("", "higher"),
    "camera": ("", "higher"),
    "background": ("", "higher"),
    "fit": ("dB", "higher"),
    "detail": ("", "higher"),
    "constancy": ("", "higher"),
    "flicker": ("255ths", "lower"),
}


Values = Sequence[Mapping[str, Any]]
"""Rows of measured values, one per video; a metric that refused a video is None there."""


@dataclass(frozen=True)
class MetricSummary:
    """One metric over all videos.

    Attributes:
        metric: its name.
        unit: empty for a plain ratio.
        better: which way is better.
        videos: how many have a value.
        mean: over these; of a metric that compares pairs, to the reference.
        low: lower end of the 95 % interval of the mean.
        high: upper end.
        reference: mean of the reference; None for a metric that compares pairs, or where there is no reference.
        difference: mean of video minus reference, per pair; None as above.
        difference_low: lower end of its 95 % interval.
        difference_high: upper end.
    """

    metric: str
    unit: str
    better: str
    videos: int
    mean: float | None
    low: float | None
    high: float | None
    reference: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


def summarise(metrics: Sequence[Metric], values: Values) -> list[MetricSummary]:
    """Every metric over all videos that have a value.

    Args:
        metrics: in the order of the rows.
        values: what `ieadapt.metrics.evaluate` gave per video; `NAME_change` beside `NAME` where there is a reference.
    """
    return [_summary(metric, values) for metric in metrics]


def _summary(metric: Metric, values: Values) -> MetricSummary:
    present = [row[metric.name] for row in values if row.get(metric.name) is not None]
    changes = [row[f"{metric.name}_change"] for row in values if row.get(f"{metric.name}_change") is not None]
    named = metric.name, metric.unit, metric.better, len(present)
    if not present:
        return MetricSummary(*named, None, None, None)
    mean, low, high = mean_interval(present)
    if not changes:
        return MetricSummary(*named, mean, low, high)
    interval = paired_interval(changes, [0.0] * len(changes))
    return MetricSummary(*named, mean, low, high, mean - interval.mean, *interval)


def summary_table(rows: Sequence[MetricSummary], label: str, reference: str | None) -> Table:
    """The summary as a table: one video set alone, or beside its reference with paired differences."""
    measured = [row for row in rows if row.videos]
    if reference is None:
        cells = [[*_named(row), str(row.videos), _number(row.mean), _ends(row.low, row.high)] for row in measured]
        caption = f"{label}: mean over videos with its bootstrap interval."
        return Table(("metric", "better", "videos", "mean", "95 % interval"), cells, caption, numeric=(2, 3, 4))
    headings = ("metric", "better", "pairs", reference, label, "difference", "95 % interval")
    caption = f"{label} against {reference}: means over videos; difference per pair, with its bootstrap interval."
    return Table(headings, [_compared(row) for row in measured], caption, numeric=(2, 3, 4, 5, 6))


def _compared(row: MetricSummary) -> list[str]:
    named = [*_named(row), str(row.videos)]
    if row.difference is None:  # compares a pair: its interval is that of the mean
        return [*named, "–", _number(row.mean), "–", _ends(row.low, row.high)]
    ends = _ends(row.difference_low, row.difference_high, sign="+")
    return [*named, _number(row.reference), _number(row.mean), _number(row.difference, "+"), ends]


def remarks(rows: Sequence[MetricSummary], pairs: int) -> list[str]:
    """What a reader must know before concluding from a table."""
    notes = []
    if 0 < pairs < ENOUGH:
        settle = "videos settle" if pairs > 1 else "video settles"
        notes.append(f"{pairs} {settle} nothing: with fewer than {ENOUGH} the intervals are too narrow.")
    partial = [f"{row.metric} ({row.videos} of {pairs})" for row in rows if row.videos < pairs]
    if partial:
        notes.append(f"measured on some videos only: {', '.join(partial)}; evaluation.json says why.")
    return notes


def markdown(table: Table) -> str:
    """A table in Markdown, with its caption below."""
    rule = ["---:" if index in table.numeric else "---" for index in range(len(table.headings))]
    lines = [table.headings, rule, *table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{table.caption}\n"


def _named(row: MetricSummary) -> list[str]:
    return [f"{row.metric} ({row.unit})" if row.unit else row.metric, row.better]


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}{_digits(value)}}"


def _ends(low: float | None, high: float | None, sign: str = "") -> str:
    if low is None or high is None:
        return "–"
    form = sign + _digits(max(abs(low), abs(high)))
    return f"[{low:{form}}, {high:{form}}]"


def _digits(value: float) -> str:
    """Digits that fit the size of a number."""
    return ".3f" if abs(value) < 10 else ".2f" if abs(value) < 1000 else ".0f"


@dataclass(frozen=True)
class Comparison:
    """One measure over all captions.

    Attributes:
        measure: its name in `ieadapt.testbed.SceneScore.as_dict()`.
        unit: its unit; empty for a share or a ratio.
        better: which direction is better.
        plain: mean over the plain videos.
        enhanced: mean over the enhanced ones.
        difference: mean of enhanced minus plain, per caption.
        low: lower end of its 95 % interval.
        high: upper end.
        videos: number of pairs.
    """

    measure: str
    unit: str
    better: Better
    plain: float
    enhanced: float
    difference: float
    low: float
    high: float
    videos: int


def compare(plain: Sequence[SceneScore], enhanced: Sequence[SceneScore]) -> list[Comparison]:
    """Compare the scores of the same captions and seeds, measure by measure.

    Raises:
        UsageError: there is no score, or the two are not equally many.
    """
    rows = []
    befores, afters = ([score.as_dict() for score in scores] for scores in (plain, enhanced))
    for measure, (unit, better) in MEASURES.items():
        before, after = [values[measure] for values in befores], [values[measure] for values in afters]
        interval = paired_interval(after, before)
        means = sum(before) / len(before), sum(after) / len(after)
        rows.append(Comparison(measure, unit, better, *means, *interval, len(before)))
    return rows


def comparison_table(rows: Sequence[Comparison], caption: str) -> Table:
    """The comparison as a table of a report."""
    headings = ("measure", "better", "plain", "enhanced", "difference", "95 % interval")
    cells = [
        [
            f"{row.measure} ({row.unit})" if row.unit else row.measure,
            row.better,
            f"{row.plain:.3f}",
            f"{row.enhanced:.3f}",
            f"{row.difference:+.3f}",
            f"[{row.low:+.3f}, {row.high:+.3f}]",
        ]
        for row in rows
    ]
    return Table(headings, cells, caption, numeric=(2, 3, 4, 5))


def verdict(row: Comparison) -> str:
    """What one row of a comparison says, no more than its interval allows, and nothing on a handful of captions.

    Example:
        >>> verdict(Comparison("motion", "", "higher", 0.8, 0.85, 0.05, -0.01, 0.1, 96))
        'motion: +0.050 [-0.010, +0.100] on 96 captions; the interval holds zero, so they do not settle it.'
    """
    begin = f"{row.measure}: {row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}] on {row.videos} captions; "
    if row.videos < ENOUGH:
        return begin + "so few captions settle nothing."
    if row.low <= 0 <= row.high:
        return begin + "the interval holds zero, so they do not settle it."
    gained = (row.difference > 0) == (row.better == "higher")
    return begin + f"the interval excludes zero: {'better' if gained else 'worse'} with enhancement."
