"""Tables of scores: means with intervals, paired differences, and what could not be measured.

`MetricSummary` is one metric, or one score of the testbed, over any videos.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.figure import Figure

from ieadapt.metrics import Metric
from ieadapt.metrics.intervals import LEAST_UNITS, Interval, mean_interval, paired_interval
from ieadapt.notation import counted
from ieadapt.runs.report import Table
from ieadapt.testbed import SceneScore
from ieadapt.testbed.score import COMPONENTS

ENOUGH = 20
"""With fewer pairs than this, a bootstrap interval is too narrow to conclude from."""

Better = Literal["higher", "lower"]

MEASURES: Mapping[str, tuple[str, Better]] = {
    **dict.fromkeys(("accuracy", *COMPONENTS), ("", "higher")),
    "fit": ("dB", "higher"),
    **dict.fromkeys(("detail", "constancy"), ("", "higher")),
    "flicker": ("255ths", "lower"),
}
"""Unit and direction of every score in `ieadapt.testbed.SceneScore.as_dict()`."""

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

    @property
    def change(self) -> Interval | None:
        """The mean difference, with its interval where there are units enough; None where nothing was compared."""
        if self.difference is None or self.difference_low is None or self.difference_high is None:
            return None
        ends = (self.difference_low, self.difference_high) if self.videos >= LEAST_UNITS else (math.nan, math.nan)
        return Interval(self.difference, *ends)

    @classmethod
    def of_pairs(cls, named: tuple[str, str, str], after: Sequence[float], before: Sequence[float]) -> MetricSummary:
        """Values beside those of a reference, pair by pair.

        Args:
            named: metric, unit, better.
            after: one value per video.
            before: one value per video of the reference, in the same order.

        Raises:
            UsageError: there is no pair, or the two are not equally many.
        """
        change = paired_interval(after, before)
        return cls(*named, len(after), *mean_interval(after), sum(before) / len(before), *change)


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
        cells = [[*_named(row), str(row.videos), _number(row.mean), _ends(row, row.low, row.high)] for row in measured]
        caption = f"{label}: mean over videos with its bootstrap interval."
        return Table(("metric", "better", "videos", "mean", "95 % interval"), cells, caption, numeric=(2, 3, 4))
    headings = ("metric", "better", "pairs", reference, label, "difference", "95 % interval")
    caption = f"{label} against {reference}: means over videos; difference per pair, with its bootstrap interval."
    return Table(headings, [_compared(row) for row in measured], caption, numeric=(2, 3, 4, 5, 6))


def definitions_table(metrics: Iterable[Metric], caption: str = "") -> Table:
    """What metrics mean."""
    better = {"context": "neither"}
    rows = [
        [each.name, each.definition, each.range, better.get(each.better, each.better), each.source] for each in metrics
    ]
    return Table(("metric", "what it is", "range", "better", "source"), rows, caption)


def _compared(row: MetricSummary) -> list[str]:
    named = [*_named(row), str(row.videos)]
    if row.difference is None:  # compares a pair: its interval is that of the mean
        return [*named, "–", _number(row.mean), "–", _ends(row, row.low, row.high)]
    ends = _ends(row, row.difference_low, row.difference_high, sign="+")
    return [*named, _number(row.reference), _number(row.mean), _number(row.difference, "+"), ends]


def remarks(rows: Sequence[MetricSummary], pairs: int) -> list[str]:
    """What a reader must know before concluding from a table."""
    notes = [answer(rows, pairs)]
    partial = [f"{row.metric} ({row.videos} of {pairs})" for row in rows if row.videos < pairs]
    if partial:
        notes.append(f"measured on some videos only: {', '.join(partial)}; evaluation.json says why.")
    return notes


def answer(rows: Sequence[MetricSummary], pairs: int) -> str:
    """What a comparison found, in a sentence; nothing of a handful of pairs.

    Example:
        >>> answer([MetricSummary("flicker", "", "lower", 30, 5.0, 4.0, 6.0, 6.0, -1.0, -1.5, -0.5)], 30)
        'Better: flicker. Worse: nothing. By 30 pairs; every interval is in the table.'
    """
    if pairs < ENOUGH:
        settle = "videos settle" if pairs > 1 else "video settles"
        return f"{pairs} {settle} nothing: with fewer than {ENOUGH} the intervals are too narrow."
    changes = [(row, row.change) for row in rows if row.change is not None]
    if not changes:
        return f"{counted(len(rows), 'metric')} of {pairs} videos."
    found: dict[str, list[str]] = {"Better": [], "Worse": [], "Changed, which is neither": []}
    for row, change in changes:
        if change.excludes_zero:
            gained = (change.mean > 0) == (row.better == "higher")
            word = "Changed, which is neither" if row.better == "context" else "Better" if gained else "Worse"
            found[word].append(row.metric)
    said = [f"{word}: {', '.join(names) or 'nothing'}." for word, names in found.items() if names or word[0] != "C"]
    return f"{' '.join(said)} By {pairs} pairs; every interval is in the table."


def plot_pairs(rows: Sequence[MetricSummary], values: Values) -> Figure:
    """A panel per metric: every pair as a line from the reference's value to the video's, and their means.

    Args:
        rows: those with a difference are drawn.
        values: as of `summarise`.
    """
    compared = [row for row in rows if row.difference is not None]
    columns = min(4, len(compared))
    figure = Figure(figsize=(2.4 * columns, 2.2 * -(-len(compared) // columns)), layout="constrained")
    axes = figure.subplots(-(-len(compared) // columns), columns, squeeze=False).flat
    for axis, row in itertools.zip_longest(axes, compared):
        axis.set_axis_off()
        if row is None:
            continue
        axis.set_axis_on()
        for each in values:
            after, change = each.get(row.metric), each.get(f"{row.metric}_change")
            if after is not None and change is not None:
                axis.plot((0, 1), (after - change, after), "-o", color="#9aa5b5", linewidth=0.8, markersize=2.5)
        axis.plot((0, 1), (row.reference, row.mean), "-o", color="#1f5fbf", linewidth=2, markersize=5)
        better = {"higher": ", higher is better", "lower": ", lower is better"}.get(row.better, "")
        axis.set_title(f"{_named(row)[0]}{better}", fontsize=8)
        axis.set_xticks((0, 1), ("reference", "video"), fontsize=8)
        axis.set_xlim(-0.25, 1.25)
        axis.tick_params(axis="y", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def markdown(table: Table) -> str:
    """A table in Markdown, with its caption below."""
    rule = ["---:" if index in table.numeric else "---" for index in range(len(table.headings))]
    lines = [table.headings, rule, *table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{table.caption}\n"


def _named(row: MetricSummary) -> list[str]:
    return [f"{row.metric} ({row.unit})" if row.unit else row.metric, row.better]


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}{_digits(value)}}"


def _ends(row: MetricSummary, low: float | None, high: float | None, sign: str = "") -> str:
    if low is None or high is None or row.videos < LEAST_UNITS:
        return "–"
    form = sign + _digits(max(abs(low), abs(high)))
    return f"[{low:{form}}, {high:{form}}]"


def _digits(value: float) -> str:
    """Digits that fit the size of a number."""
    return ".3f" if abs(value) < 10 else ".2f" if abs(value) < 1000 else ".0f"


def compare(plain: Sequence[SceneScore], enhanced: Sequence[SceneScore]) -> list[MetricSummary]:
    """The scores of enhanced videos beside the plain ones of the same captions and seeds, score by score.

    Raises:
        UsageError: there is no score, or the two are not equally many.
    """
    befores, afters = ([score.as_dict() for score in scores] for scores in (plain, enhanced))
    return [
        MetricSummary.of_pairs((name, *facts), *([values[name] for values in each] for each in (afters, befores)))
        for name, facts in MEASURES.items()
    ]


def verdict(row: MetricSummary) -> str:
    """What one row with a difference says, no more than its interval allows, and nothing on a handful of captions.

    Example:
        >>> verdict(MetricSummary("motion", "", "higher", 96, 0.85, 0.8, 0.9, 0.8, 0.05, -0.01, 0.1))
        'motion: +0.050 [-0.010, +0.100] on 96 captions; the interval holds zero, so they do not settle it.'
    """
    difference = row.change
    if difference is None:
        return f"{row.metric}: compared with nothing."
    begin = f"{row.metric}: {difference} on {counted(row.videos, 'caption')}; "
    if row.videos < ENOUGH:
        return begin + "so few captions settle nothing."
    if not difference.excludes_zero:
        return begin + "the interval holds zero, so they do not settle it."
    gained = (difference.mean > 0) == (row.better == "higher")
    return begin + f"the interval excludes zero: {'better' if gained else 'worse'} with enhancement."
