"""The table: marks, the best plain setting, and paired differences to it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.testbed.summary import bench_table, summarise
from benchmarks.testbed.tracks import TRACKS, Row
from ieadapt.metrics.intervals import paired_interval

GENERATION = TRACKS["generation"]


def _rows(method: str, passes: int, accuracy: list[float], flicker: float = 1.0) -> list[Row]:
    others = dict.fromkeys(GENERATION.measures, 0.5) | {"flicker": flicker, "fit": 20.0}
    told = {"method": method, "steps": 10, "passes": passes}
    return [{"scene": f"s{k}", **told, **others, "accuracy": value} for k, value in enumerate(accuracy)]


ROWS = [
    *_rows("plain", 20, [0.5, 0.6, 0.7]),
    *_rows("default", 25, [0.7, 0.8, 0.8], flicker=3.0),
    *_rows("plain-guidance-2", 20, [0.6, 0.6, 0.7], flicker=2.0),
    *_rows("pag", 30, [0.6, 0.6]),
]


def test_differences_are_to_the_best_plain_setting_scene_by_scene() -> None:
    figures = {row["method"]: row for row in summarise(GENERATION, ROWS)}
    assert list(figures) == ["plain", "plain-guidance-2", "default", "pag"], "in the order of the methods"
    assert {row["against"] for row in figures.values()} == {"plain-guidance-2"}
    own = figures["default"]
    assert (own["scenes"], own["passes"], own["passes_per_step"]) == (3, 25, 2.5)
    assert own["accuracy"] == pytest.approx(np.mean([0.7, 0.8, 0.8]))
    expected = paired_interval([0.7, 0.8, 0.8], [0.6, 0.6, 0.7])
    assert [own[f"accuracy_{end}"] for end in ("difference", "low", "high")] == pytest.approx(list(expected))
    assert own["flicker_difference"] == pytest.approx(1.0)
    assert figures["plain-guidance-2"]["accuracy_difference"] == 0.0
    assert figures["pag"]["accuracy_difference"] == pytest.approx(0.0), "over the two scenes that both have"


def test_without_a_plain_setting_there_is_no_difference() -> None:
    figures = summarise(GENERATION, _rows("pag", 30, [0.5]))
    assert (figures[0]["against"], figures[0]["accuracy_difference"]) == (None, None)
    table = bench_table(GENERATION, figures)
    assert "No plain setting was run" in table.caption
    assert table.rows[0][:6] == ["pag", "3.00", "1", "0.500", "–", "–"]


def test_the_table_shows_cost_difference_and_every_mark() -> None:
    table = bench_table(GENERATION, summarise(GENERATION, ROWS))
    assert "to plain-guidance-2, the best plain setting" in table.caption
    assert table.headings[:6] == ["method", "passes per step", "scenes", "accuracy ↑", "difference", "95 % interval"]
    assert {heading.split()[0] for heading in table.headings[3:]} == {"difference", "95", *GENERATION.measures}
    row = next(row for row in table.rows if row[0] == "default")
    assert row[1:5] == ["2.50", "3", "0.767", "+0.133"]
