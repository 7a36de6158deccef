"""`ieadapt tune` on a tiny model: priced, run, its preset used by `enhance`, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import SIZE, Program

PROMPTS = "\n".join(f"a red ball number {number}" for number in range(12))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text(PROMPTS + "\n")
    return file


def test_a_preset_from_nothing_with_two_commands(program: Program, tiny: Path, prompts: Path, tmp_path: Path) -> None:
    run, words = (
        tmp_path / "run",
        ("--prompts", prompts, "--metric", "sharpness", "--candidates", "2", "--workers", "1"),
    )
    done = program("tune", tiny, *words, *SIZE, "--out", run, "--json")
    assert done.status == 0, done.err
    assert "2 candidates on 6 prompts, the best one on 6 others: at most " in done.err
    assert "show gains from" in done.err
    result = json.loads(done.out)
    assert result["verdict"] in ("confirmed", "refuted", "undecided")
    assert result == {**json.loads((run / "result.json").read_text()), **{k: result[k] for k in result}}
    preset = ("--preset", run / "preset.json", "--profile", run)
    made = program("enhance", tiny, "--prompt", "a red ball", *SIZE, *preset, "--out", tmp_path / "enhanced")
    assert made.status == 0, made.err


def test_the_price_alone(program: Program, tiny: Path, prompts: Path, tmp_path: Path) -> None:
    words = ("--prompts", prompts, "--metric", "sharpness", "--dry-run", "--out", tmp_path / "run")
    done = program("tune", tiny, *words, *SIZE)
    assert done.status == 0, done.err
    assert " candidates on 6 prompts" in done.out
    assert not (tmp_path / "run").exists()


def test_refusals_are_one_line_and_leave_nothing(program: Program, tiny: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    few = program("tune", tiny, "--prompt", "a red ball", "--metric", "sharpness", *SIZE, *out).refused()
    assert "too few prompts to choose on one half and to prove on the other" in few
    unknown = program("tune", tiny, "--prompt", "a red ball", "--metric", "beauty", *SIZE, *out).refused()
    assert "this metric cannot be tuned" in unknown
    assert not (tmp_path / "run").exists()
