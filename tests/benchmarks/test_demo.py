"""What the demo shows is what the records say it is."""

from __future__ import annotations

from benchmarks.results import load
from ieadapt.tasks.demo.edit import KIND, PAIR
from ieadapt.tasks.demo.layer import LAYER
from ieadapt.testbed.edits import HALVES, edit_pairs


def test_the_layer_costs_most_motion_of_those_that_surely_do() -> None:
    rows = [row for row in load("study-scenes")["rows"] if row["perturbation"] == "identity"]
    assert len(rows) == 30
    sure = [row for row in rows if row["testbed_motion_change_high"] < 0]
    assert len(sure) > 5
    assert min(sure, key=lambda row: row["testbed_motion_change"])["site"] == LAYER


def test_the_edit_is_the_one_in_the_middle_of_the_choosing_half() -> None:
    rows = load("demo-edit")["rows"]
    assert [row["psnr"] for row in rows] == sorted(row["psnr"] for row in rows)
    assert rows[len(rows) // 2]["number"] == PAIR
    assert len(rows) % 2 == 1
    pairs = {pair.number: pair for pair in edit_pairs(max(row["number"] for row in rows) + 1, [KIND])}
    assert all(pairs[row["number"]].half == HALVES[0] for row in rows)
    assert all(pairs[row["number"]].prompt == row["prompt"] for row in rows)
