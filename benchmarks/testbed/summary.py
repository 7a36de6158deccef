"""From rows to one table: every method with its cost, its marks, and its difference to the best plain setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.testbed.tracks import Row, Track
from ieadapt.metrics.intervals import paired_interval
from ieadapt.runs.report import Table

Figures = dict[str, Any]
_SIGNS = {"higher": "↑", "lower": "↓", "near 1": "→ 1"}


def summarise(track: Track, rows: Sequence[Row]) -> list[Figures]:
    """One row per method, in the track's order.

    Every difference is to the plain setting with the best leading mark among those that were run; without any, there
    is none. It is taken scene by scene, with a bootstrap interval of 95 %.

    Args:
        track: whose methods and marks they are.
        rows: one per method and scene.
    """
    by_method = {name: own for name in track.methods if (own := _of(rows, name))}
    best = best_plain(track, by_method)
    return [_summary(track, name, by_method, best) for name in by_method]


def best_plain(track: Track, by_method: Mapping[str, Mapping[str, Row]]) -> str | None:
    """The plain setting with the best leading mark; None where none was run."""
    plain = [name for name in by_method if track.methods[name].group == "plain"]
    return max(plain, key=lambda name: _mean(by_method[name], track.leading), default=None)


def _of(rows: Sequence[Row], method: str) -> dict[str, Row]:
    return {row["scene"]: row for row in rows if row["method"] == method}


def _mean(rows: Mapping[str, Row], measure: str) -> float:
    return sum(row[measure] for row in rows.values()) / len(rows)


def _summary(track: Track, name: str, by_method: Mapping[str, Mapping[str, Row]], best: str | None) -> Figures:
    rows = by_method[name]
    steps, passes = _mean(rows, "steps"), _mean(rows, "passes")
    row: Figures = {"method": name, "group": track.methods[name].group, "settings": track.methods[name].settings}
    row |= {"scenes": len(rows), "steps": steps, "passes": passes, "passes_per_step": passes / steps, "against": best}
    shared = [] if best is None else [scene for scene in rows if scene in by_method[best]]
    for measure in track.measures:
        row[measure] = _mean(rows, measure)
        ends: Sequence[float | None] = (None, None, None)
        if best is not None and shared:
            ours, theirs = ([by_method[each][scene][measure] for scene in shared] for each in (name, best))
            ends = paired_interval(ours, theirs)
        row |= dict(zip((f"{measure}_difference", f"{measure}_low", f"{measure}_high"), ends, strict=True))
    return row


def bench_table(track: Track, figures: Sequence[Figures]) -> Table:
    """The summary as a table: cost, the leading mark with its difference and interval, then the other marks."""
    others = [measure for measure in track.measures if measure != track.leading]
    headings = ["method", "passes per step", "scenes", _headed(track, track.leading), "difference", "95 % interval"]
    cells = [
        [
            row["method"],
            f"{row['passes_per_step']:.2f}",
            str(row["scenes"]),
            _number(row[track.leading]),
            _number(row[f"{track.leading}_difference"], "+"),
            _ends(row[f"{track.leading}_low"], row[f"{track.leading}_high"]),
            *(_number(row[measure]) for measure in others),
        ]
        for row in figures
    ]
    against = next((row["against"] for row in figures), None)
    caption = f"Testbed, {track.name}. " + (
        f"Differences in {track.leading} are to {against}, the best plain setting, scene by scene."
        if against
        else "No plain setting was run, so there is no difference to it."
    )
    headings += [_headed(track, measure) for measure in others]
    return Table(headings, cells, f"{caption} {track.note}", numeric=range(1, len(headings)))


def _headed(track: Track, measure: str) -> str:
    better = track.measures[measure][1]
    return f"{measure} {_SIGNS.get(better, better)}"


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:{sign}.{2 if abs(value) >= 10 else 3}f}"


def _ends(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"[{_number(low, '+')}, {_number(high, '+')}]"
