"""The table of edits: chosen on one half, reported on the other, with paired intervals; and cells that resume."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks.edit_methods import CEILING, COPY, DEFAULT, WITHOUT_EDIT, candidates, injections, methods, select
from benchmarks.edit_pairs import missing, read_cells
from benchmarks.edit_table import by_method, injection, ranked, report, verdicts, write
from ieadapt.testbed.edits import edit_pairs

OTHER, PUBLISHED = next(iter(candidates())), "sdedit-0.6"
LOUD = "start 0.2, guidance 6"


def cell(number: int, method: str, psnr: float, *, kind: str = "colour", success: float = 1.0) -> dict[str, Any]:
    half = ("choose", "report")[number // 2 % 2]
    marks = {"psnr": psnr, "ssim": 0.9, "kept": psnr + 3, "change": success, "success": success, "preserved": 0.9}
    return {"pair": f"{kind}-{number:03d}", "kind": kind, "half": half, "method": method, **marks, "seconds": 1.0}


def some_cells() -> list[dict[str, Any]]:
    """The other candidate is better on the half that chooses, and 1 dB better on the half that reports."""
    cells = []
    for number in range(12):
        wobble = 0.1 * (number % 3)
        cells += [
            cell(number, DEFAULT, 20.0 + wobble),
            cell(number, OTHER, 21.0 + wobble),
            cell(number, LOUD, 30.0, success=0.5),
            cell(number, PUBLISHED, 30.0, success=0.5),
            cell(number, COPY, 15.0 + wobble, success=0.0),
            cell(number, CEILING, 34.0),
        ]
    return cells


def test_the_best_that_succeeds_often_enough_is_chosen() -> None:
    order = [row["method"] for row in ranked(by_method(some_cells(), "choose", ["colour"]))]
    assert order == [OTHER, LOUD]


def test_the_report_uses_the_other_half_only() -> None:
    cells = some_cells()
    for each in cells:
        if each["half"] == "choose":
            each["psnr"] = 0.0
    rows = {row["method"]: row for row in report(by_method(cells, "report", ["colour"]), OTHER)}
    assert rows[OTHER]["pairs"] == 6
    assert rows[OTHER]["psnr"] == pytest.approx(21.1, abs=0.05)
    assert rows[DEFAULT]["advantage"] == pytest.approx(1.0)
    assert rows[DEFAULT]["advantage_low"] == pytest.approx(1.0)
    assert rows[COPY]["success"] == 0.0
    assert list(rows)[:2] == [CEILING, COPY] or list(rows)[:2] == [COPY, CEILING]


def test_a_verdict_names_what_is_not_beaten() -> None:
    rows = report(by_method(some_cells(), "report", ["colour"]), OTHER)
    said = verdicts(rows, OTHER)
    assert "success 1.000" in said[0]
    assert "against 1 of 2 published ones and controls, the copy of the source among them" in said[1]
    assert said[2] == f"Better than it: {PUBLISHED}."


def test_sites_by_ep_are_held_against_the_mean_of_random_draws() -> None:
    cells = []
    for number in range(8):
        cells += [
            cell(number, "inject none", 20.0),
            cell(number, "inject spatial low EP", 21.0),
            cell(number, "inject spatial random 0", 20.0),
            cell(number, "inject spatial random 1", 21.0),
        ]
    rows = {(row["edits"], row["against"]): row for row in injection(cells)}
    assert rows["colour", "as many random sites"]["difference"] == pytest.approx(0.5)
    assert rows["colour", "as many random sites"]["draws"] == 2
    assert rows["all four", "no injection"]["difference"] == pytest.approx(1.0)
    assert ("shape", "no injection") not in rows


def test_records_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = argparse.Namespace(folder=tmp_path, device_name="a GPU", made_by="")
    write(arguments, some_cells())
    content = results.load("edit-pairs", folder=tmp_path)
    assert content["machine"] == {"gpu": "a GPU"}
    assert f"Chosen on the first half of the pairs: {OTHER}" in content["notes"]
    assert {row["kind"] for row in results.load("edit-kinds", folder=tmp_path)["rows"]} == {"colour"}
    assert not (tmp_path / "edit-injection.json").exists()
    assert ", the copy of the source among them." in capsys.readouterr().out


def test_finished_cells_are_not_done_again(tmp_path: Path) -> None:
    file, pairs = tmp_path / "cells.jsonl", edit_pairs(2, ["colour", "shape"])
    rows = [cell(0, DEFAULT, 20.0), cell(0, COPY, 15.0)]
    file.write_text("\n".join(map(json.dumps, rows)) + '\n{"pair": "colour-001", "meth')
    assert read_cells(file) == rows
    left = {pair.name: names for pair, names in missing(pairs, [DEFAULT, COPY], read_cells(file))}
    assert left == {name: [DEFAULT, COPY] for name in ("shape-000", "colour-001", "shape-001")}
    assert read_cells(tmp_path / "none.jsonl") == []


def test_methods_have_names_and_groups() -> None:
    assert set(select("all")) == {*WITHOUT_EDIT, *methods()}
    assert select(f"none; {OTHER}") == [*WITHOUT_EDIT, OTHER]
    assert len(set(map(str, injections().values()))) == len(injections())
    with pytest.raises(ValueError, match="no method 'magic'; there are: all; none; presets"):
        select("magic")
