"""The picture of sites chosen by EP against random ones shows the records' figures."""

from __future__ import annotations

from typing import Any

from benchmarks.edit_figure import RULES, sites_against_random


def row(edits: str, edit: str, sites: str = "any", **differences: float) -> dict[str, Any]:
    line: dict[str, Any] = {"edits": edits, "edit": edit, "sites": sites, "low_pairs": 12}
    for rule in RULES:
        mean = differences.get(rule)
        ends = (None, None) if mean is None else (mean - 0.5, mean + 1.0)
        line |= dict(zip((f"{rule}_difference", f"{rule}_from", f"{rule}_to"), (mean, *ends), strict=True))
    return line


def test_every_difference_is_drawn_with_its_interval() -> None:
    rows = [
        row("all four", "inverted", low=-3.0, high=1.0, none=-2.0),
        row("colour", "inverted", low=-4.0, high=2.0),
        row("colour", "default", low=-1.0),
        row("colour", "default", "spatial", low=9.0),
    ]
    inverted, default = sites_against_random(rows).axes
    assert [label.get_text() for label in inverted.get_yticklabels()] == ["all but motion (12)", "colour (12)"]
    assert [label.get_text() for label in default.get_yticklabels()] == ["colour (12)"]
    high, low, none = (container.lines for container in inverted.containers)  # type: ignore[attr-defined]
    assert [list(points.get_xdata()) for points, _, _ in (high, low, none)] == [[1.0, 2.0], [-3.0, -4.0], [-2.0]]
    bars = [segment[:, 0].tolist() for segment in low[2][0].get_segments()]
    assert bars == [[-3.5, -2.0], [-4.5, -3.0]]
    assert [list(container.lines[0].get_xdata()) for container in default.containers] == [[], [-1.0], []]  # type: ignore[attr-defined]
