"""What an evaluation says: means with intervals, paired differences, and what could not be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ieadapt.metrics import Metric
from ieadapt.metrics.intervals import Interval, mean_interval, paired_interval
from ieadapt.runs.report import Table
from ieadapt.tasks.evaluate.comparison import ENOUGH

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

    def as_dict(self) -> dict[str, Any]:
        """As a flat row of a record."""
        return asdict(self)


def summarise(metrics: Sequence[Metric], values: Values) -> list[MetricSummary]:
    """Every metric over all videos that have a value.

    Args:
        metrics: in the order of the rows.
        values: what `ieadapt.metrics.evaluate` gave per video; `NAME_change` beside `NAME` where there is a reference.
    """
    return [_summary(metric, values) for metric in metrics]


def _summary(metric: Metric, values: Values) -> MetricSummary:
    named = metric.name, metric.unit, metric.better
    found = [row[metric.name] for row in values if row.get(metric.name) is not None]
    if not found:
        return MetricSummary(*named, 0, None, None, None)
    whole = MetricSummary(*named, len(found), *mean_interval(found))
    changes = [row[f"{metric.name}_change"] for row in values if row.get(f"{metric.name}_change") is not None]
    if not changes:
        return whole
    interval = paired_interval(changes, [0.0] * len(changes))
    before = whole.mean - interval.mean if whole.mean is not None else None
    return MetricSummary(*named, len(found), whole.mean, whole.low, whole.high, before, *interval)


def summary_table(rows: Sequence[MetricSummary], label: str, reference: str | None) -> Table:
    """The summary as a table: one video set alone, or beside its reference with paired differences."""
    told = [row for row in rows if row.videos]
    headings: tuple[str, ...] = ("metric", "better", "videos", "mean", "95 % interval")
    if reference is None:
        cells = [[*_named(row), _number(row.mean), _ends(row.low, row.high)] for row in told]
        return Table(headings, cells, f"{label}: mean over videos with its bootstrap interval.", numeric=(2, 3, 4))
    headings = ("metric", "better", "pairs", reference, label, "difference", "95 % interval")
    caption = f"{label} against {reference}: means over videos; difference per pair, with its bootstrap interval."
    return Table(headings, [_compared(row) for row in told], caption, numeric=(2, 3, 4, 5, 6))


def _compared(row: MetricSummary) -> list[str]:
    if row.difference is None:  # compares a pair: its interval is that of the mean
        return [*_named(row), "–", _number(row.mean), "–", _ends(row.low, row.high)]
    difference = f"{row.difference:+{_form(row.difference)}}"
    ends = _ends(row.difference_low, row.difference_high, sign="+")
    return [*_named(row), _number(row.reference), _number(row.mean), difference, ends]


def remarks(rows: Sequence[MetricSummary], pairs: int) -> list[str]:
    """What a reader must know before concluding from a table."""
    said = []
    if 0 < pairs < ENOUGH:
        said.append(
            f"{pairs} video{'s settle' if pairs > 1 else ' settles'} nothing: "
            f"with fewer than {ENOUGH} the intervals are too narrow."
        )
    partial = [f"{row.metric} ({row.videos} of {pairs})" for row in rows if row.videos < pairs]
    if partial:
        said.append(f"measured on some videos only: {', '.join(partial)}; evaluation.json says why.")
    return said


def markdown(table: Table) -> str:
    """A table in Markdown, with its caption below."""
    rule = ["---:" if index in table.numeric else "---" for index in range(len(table.headings))]
    lines = [table.headings, rule, *table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{table.caption}\n"


def _named(row: MetricSummary) -> list[str]:
    return [f"{row.metric} ({row.unit})" if row.unit else row.metric, row.better, str(row.videos)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:{_form(value)}}"


def _ends(low: float | None, high: float | None, sign: str = "") -> str:
    if low is None or high is None:
        return "–"
    form = sign + _form(max(abs(low), abs(high)))
    return f"[{low:{form}}, {high:{form}}]"


def _form(value: float) -> str:
    """Digits that fit the size of a number."""
    return ".3f" if abs(value) < 10 else ".2f" if abs(value) < 1000 else ".0f"


__all__ = ["Interval", "MetricSummary", "markdown", "remarks", "summarise", "summary_table"]
