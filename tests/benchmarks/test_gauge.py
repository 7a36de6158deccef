"""The gauge tells what is off, and fails beyond its tolerance."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gauge, results
from benchmarks.testbed.tracks import TRACKS

BEFORE = results.load(gauge.NAME)["rows"]


def _moved(**by: float) -> list[dict]:
    return [row | {mark: row[mark] + change for mark, change in by.items() if mark in row} for row in BEFORE]


def test_the_record_is_of_the_part_that_is_run() -> None:
    chosen = [(track, name) for track, names in gauge.CONFIG.chosen.items() for name in names]
    assert sorted((row["track"], row["method"]) for row in BEFORE) == sorted(chosen)
    assert {row["scenes"] for row in BEFORE} == {gauge.CONFIG.scenes}


def test_every_mark_of_every_method_is_compared() -> None:
    same = list(gauge.changes(BEFORE, BEFORE))
    assert len(same) == sum(len(TRACKS[row["track"]].measures) for row in BEFORE)
    assert not [row for row in same if row[-1]]


@pytest.mark.parametrize(("mark", "inside"), [("accuracy", 0.009), ("psnr", 0.4), ("flicker", 0.25)])
def test_a_mark_beyond_its_tolerance_is_marked(mark: str, inside: float) -> None:
    for change, expected in ((inside, False), (-inside, False), (2 * inside, True), (-2 * inside, True)):
        marked = {row[2] for row in gauge.changes(_moved(**{mark: change}), BEFORE) if row[-1]}
        assert marked == ({mark} if expected else set())


def test_a_record_of_other_methods_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"of other methods: run python -m benchmarks\.gauge --record"):
        list(gauge.changes(BEFORE[1:], BEFORE))


@pytest.mark.parametrize(("change", "status"), [(0.0, 0), (0.2, 1)])
def test_its_exit_status_says_whether_something_is_off(
    change: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gauge, "gauge_rows", lambda folder: _moved(accuracy=change))
    assert gauge.main([]) == status
    assert f"{3 * status} of 57 marks are beyond their tolerance." in capsys.readouterr().out


def test_what_was_found_becomes_the_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gauge, "gauge_rows", lambda folder: _moved(detail=0.1))
    assert gauge.main(["--record", "--folder", str(tmp_path)]) == 0
    assert results.load(gauge.NAME, folder=tmp_path)["rows"] == _moved(detail=0.1)


@pytest.mark.slow
def test_the_small_part_gives_what_was_recorded() -> None:
    assert gauge.main([]) == 0
