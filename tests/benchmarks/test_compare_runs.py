"""The table of docs/metrics.md is what `ieadapt compare` prints of the videos that ship with the repository."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import compare_runs, results
from ieadapt.cli import main

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "benchmarks" / "runs"


def test_the_table_of_the_page_is_what_compare_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "metrics.md").read_text()
    command = next(line for line in page.splitlines() if line.startswith("ieadapt compare benchmarks/runs/plain"))
    assert command == compare_runs.COMMAND
    assert main([*command.split()[1:], "--out", str(tmp_path / "run")]) == 0
    printed = [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()[1:8]]
    shown = page.split(f"<!-- table: {compare_runs.NAME} ")[1].split("<!-- /table -->")[0].splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown]
    assert [cells[0], *cells[2:]] == printed
    assert len(printed) == 1 + len(compare_runs.METRICS.split(","))


def test_the_record_is_of_these_videos() -> None:
    record = results.load(compare_runs.NAME)
    assert record["command"] == compare_runs.COMMAND
    assert record["rows"] == compare_runs.rows_of(compare_runs.comparison())


def test_the_videos_say_how_they_were_made_and_are_light() -> None:
    run = json.loads((RUNS / "config.json").read_text())
    assert run["status"] == "complete"
    assert run["command"].startswith("ieadapt bench vbench scenes --prompts benchmarks/runs/prompts.txt")
    names = {f"{prompt}-0.mp4" for prompt in (RUNS / "prompts.txt").read_text().splitlines()}
    for part in ("plain", "enhanced"):
        assert {file.name for file in (RUNS / part).iterdir()} == names == set(run["seeds"])
    assert sum(file.stat().st_size for file in RUNS.rglob("*") if file.is_file()) < 1_200_000
