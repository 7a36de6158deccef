"""A trial is made once, with its truth, and wrong verdicts are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tune_validity
from benchmarks.study import captions
from benchmarks.tune_validity import main, summary


def test_wrong_verdicts_are_counted() -> None:
    rows = [
        {"arm": "null", "verdict": "confirmed", "truth_difference": 0.0, "low": 0.0, "high": 0.0},
        {"arm": "null", "verdict": "undecided", "truth_difference": 0.0, "low": 0.0, "high": 0.0},
        {"arm": "a", "verdict": "confirmed", "truth_difference": 0.02, "low": 0.01, "high": 0.03},
        {"arm": "b", "verdict": "confirmed", "truth_difference": -0.02, "low": -0.03, "high": -0.01},
        {"arm": "c", "verdict": "refuted", "truth_difference": -0.02, "low": -0.03, "high": -0.01},
    ]
    assert summary(rows) == "1 of 2 null tunes confirmed; of 2 others confirmed, truth refutes 1; 1 gain on average"


def test_captions_of_trials_differ() -> None:
    assert len(set(captions(20, 30_001))) == 20
    assert not set(captions(20, 30_001)) & set(captions(20, 30_002))


@pytest.mark.slow
def test_a_trial_is_made_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--trials", "1", "--prompts", "12", "--candidates", "2", "--truth", "1", "--steps", "1", "--batch", "6"]
    words += ["--model", "scenes-dit", "--metric", "sharpness", "--device", "cpu", "--out", str(tmp_path)]
    main(words)
    first = capsys.readouterr().out
    assert first.splitlines()[-1].startswith("0 of 0 null tunes confirmed; ")
    assert (tmp_path / "scenes-dit-sharpness-00" / "truth.json").is_file()
    monkeypatch.setattr(tune_validity, "run_tune", None)  # which must not be called again
    main(words)
    assert (
        capsys.readouterr().out.splitlines() == first.splitlines()[-2:]
    )  # without what is printed as clips are scored
