"""The command of the benchmark on the test bed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.testbed.__main__ import _application
from ieadapt.cli.main import run_program


def _run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    status = run_program(_application, [str(word) for word in words])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


@pytest.mark.slow
def test_the_testbed_prints_a_table_per_track(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--scenes", 1, "--steps", 1, "--methods", "plain,copy", "--workers", 1)
    out = _run(capsys, *words, "--out", tmp_path / "run")
    assert out.count("passes per step") == 2
    assert "Differences in accuracy are to plain, the best plain setting" in out
    assert (tmp_path / "run" / "testbed-editing.json").is_file()
    again = _run(capsys, *words, "--out", tmp_path / "run", "--resume", "--json")
    assert [row["method"] for row in json.loads(again)["rows"]["generation"]] == ["plain"]
    assert run_program(_application, [*map(str, words), "--methods", "plian"]) == 2
    assert "no method 'plian'" in capsys.readouterr().err
