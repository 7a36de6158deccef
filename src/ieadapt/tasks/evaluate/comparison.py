"""Plain against enhanced on the testbed: every measure with its paired difference and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from ieadapt.metrics.intervals import paired_interval
from ieadapt.runs.report import Table
from ieadapt.testbed import Score

ENOUGH = 20
"""With fewer pairs than this, a bootstrap interval is too narrow to conclude from."""

Better = Literal["higher", "lower", "near 1"]

MEASURES: Mapping[str, tuple[str, Better]] = {
    "fidelity": ("", "higher"),
    "size": ("", "higher"),
    "colour": ("", "higher"),
    "background": ("", "higher"),
    "shape": ("", "higher"),
    "motion": ("", "higher"),
    "iou": ("", "higher"),
    "fit": ("dB", "higher"),
    "jitter": ("pixels", "lower"),
    "flicker": ("255ths", "lower"),
    "sharpness": ("", "near 1"),
}


@dataclass(frozen=True)
class Comparison:
    """One measure over all captions.

    Attributes:
        measure: its name in `ieadapt.testbed.Score`.
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

    def as_dict(self) -> dict[str, str | float | int]:
        """As a flat row of a record."""
        return asdict(self)


def compare(plain: Sequence[Score], enhanced: Sequence[Score]) -> list[Comparison]:
    """Compare the scores of the same captions and seeds, measure by measure.

    Raises:
        UsageError: there is no score, or the two are not equally many.
    """
    rows = []
    for measure, (unit, better) in MEASURES.items():
        before = [getattr(score, measure) for score in plain]
        after = [getattr(score, measure) for score in enhanced]
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
    if row.better == "near 1":
        return begin + "the interval excludes zero."
    gained = (row.difference > 0) == (row.better == "higher")
    return begin + f"the interval excludes zero: {'better' if gained else 'worse'} with enhancement."
