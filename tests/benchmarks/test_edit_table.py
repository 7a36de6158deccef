"""The table of edits: chosen on some pairs, reported on others, with paired intervals; and cells that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks.edit_methods import CEILING, COPY, DEFAULT, WITHOUT_EDIT, candidates, injections, methods, select
from benchmarks.edit_pairs import bench_cells, kept_cells, main, missing, read_cells
from benchmarks.edit_table import by_kind, by_method, injection, ranked, report, verdicts, write
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
    presets = {"low-ep": 19.0, "high-ep": 23.0, "random": 21.0, "inversion": 20.0}
    cells += [{**cell(0, name, psnr), "half": "bench"} for name, psnr in presets.items()]
    found = injection(cells)
    inverted = next(row for row in found if (row["edits"], row["edit"]) == ("colour", "inverted"))
    assert [inverted[f"{name}_difference"] for name in ("low", "high", "none")] == [-2.0, 2.0, -1.0]
    rows = {(row["edits"], row["sites"]): row for row in found if row["edit"] == "default"}
    assert set(rows) == {("all four", "spatial"), ("colour", "spatial")}
    of_colour = rows["colour", "spatial"]
    assert (of_colour["draws"], of_colour["low_pairs"], of_colour["high_pairs"]) == (2, 4, 0)
    assert of_colour["low_difference"] == pytest.approx(0.5)
    assert of_colour["high_difference"] is None
    assert of_colour["none_difference"] == pytest.approx(-0.5)


def test_kinds_are_recorded_apart(tmp_path: Path) -> None:
    cells = some_cells() + [
        cell(number, f"inject any {rule}", 20.0) for number in range(12) for rule in ("low EP", "random 0")
    ]
    write("shapes", cells, tmp_path)
    together, apart = (
        results.load(f"{name}-shapes", folder=tmp_path)["rows"] for name in ("edit-injection", "edit-injection-kinds")
    )
    assert [row["edits"] for row in together] == ["all four"]
    assert [row["edits"] for row in apart] == ["colour"]


def test_kinds_name_the_published_method_that_comes_nearest() -> None:
    cells = some_cells() + [cell(number, "uniedit", 19.0) for number in range(12)]
    (row,) = by_kind(cells, "report")
    assert (row["kind"], row["pairs"], row["best_other"]) == ("colour", 6, PUBLISHED)
    assert row["copy"] == pytest.approx(15.1, abs=0.05)
    assert row["advantage"] == pytest.approx(-9.9, abs=0.05)


def test_records_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("shapes", some_cells(), tmp_path, "a GPU")
    content = results.load("edit-pairs-shapes", folder=tmp_path)
    assert content["machine"] == {"gpu": "a GPU"}
    assert "The second half of the pairs" in content["notes"]
    assert f"Chosen: {OTHER} (" in results.load("edit-choice-shapes", folder=tmp_path)["notes"]
    assert {row["kind"] for row in results.load("edit-kinds-shapes", folder=tmp_path)["rows"]} == {"colour"}
    assert not (tmp_path / "edit-injection-shapes.json").exists()
    assert ", the copy of the source among them." in capsys.readouterr().out


def test_pairs_of_the_testbed_benchmark_go_before_the_second_half(tmp_path: Path) -> None:
    others = [{**cell(0, DEFAULT, 25.0), "half": "bench", "pair": "bench colour-000"}]
    write("shapes", some_cells() + others, tmp_path)
    content = results.load("edit-pairs-shapes", folder=tmp_path)
    assert [(row["method"], row["pairs"]) for row in content["rows"]] == [(DEFAULT, 1)]
    assert "The pairs of the testbed benchmark" in content["notes"]


def test_kept_rows_gain_what_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, run = tmp_path / "cells.jsonl", tmp_path / "run"
    row = {**cell(0, "copy", 15.0, success=0.0), "scene": "colour-000", "steps": 25, "passes": 0.0}
    place = run / "rows" / "editing" / "copy" / "colour-000.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({name: value for name, value in row.items() if name not in ("pair", "half")}))
    assert [(each["pair"], each["half"], each["method"]) for each in bench_cells(run)] == [
        ("bench colour-000", "bench", COPY)
    ]
    words = ["keep", "--kept", str(tmp_path / "kept"), "--cells", str(file), "--bench", str(run)]
    for psnr in (20.0, 21.0):
        file.write_text(json.dumps(cell(0, DEFAULT, psnr)) + "\n")
        assert main(words) == 0
    kept = {(each["pair"], each["method"]): each["psnr"] for each in kept_cells("shapes", tmp_path / "kept")}
    assert kept == {("colour-000", DEFAULT): 21.0, ("bench colour-000", COPY): 15.0}
    assert "2 rows of shapes" in capsys.readouterr().out
    assert kept_cells("other", tmp_path / "kept") == []


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
