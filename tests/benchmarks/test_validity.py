"""A model passes where it fails as it should and methods can be seen to help, and not otherwise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scenes_compare import Rows
from benchmarks.training.checkpoint import load_parts, save_weights
from benchmarks.training.models import ARCHITECTURES
from benchmarks.validity import Picks, judged, main

PICKS = Picks("scenes-dit", 4, {"guidance": 1}, {"guidance": 1}, {"guidance": 1}, 61)
GOOD = {
    "plain": 0.6,
    "picked": 0.7,
    "picked, twice the steps": 0.705,
    "four times": 0.5,
    "method": 0.66,
    "beside the method": 0.6,
    "guidance 1, equal passes": 0.61,
    "better": 0.65,
    "worse": 0.58,
    "vae": 0.98,
}


def _rows(mean: float, name: str, presence: float = 0.9) -> Rows:
    noise = 0.02 * np.random.default_rng(len(name)).standard_normal(200)
    return [{"accuracy": mean + float(each), "presence": presence} for each in noise]


def _passed(presence: float = 0.9, diversity: float = -0.1, **changes: float) -> dict[str, bool]:
    means = GOOD | {name.replace("_", " "): value for name, value in changes.items()}
    found = {name: _rows(mean, name, presence if name == "worse" else 0.9) for name, mean in means.items()}
    spread = {"plain": [0.6, 0.7] * 24, "picked": [0.6 + diversity, 0.7 + diversity] * 24}
    return {str(row["condition"]): bool(row["passed"]) for row in judged(found, spread, PICKS)}


def test_a_good_model_passes() -> None:
    assert all(_passed().values())


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        ("guidance: picked less 1", {"plain": 0.66}),
        ("guidance: diversity, picked less 1", {"diversity": 0.1}),
        ("room: picked / truth through the VAE", {"picked": 0.9}),
        ("perturbation: published method less plain", {"method": 0.59}),
        ("perturbation: published method less guidance 1, equal passes", {"method": 0.605}),
        ("harm: four times the scale less picked", {"four_times": 0.72}),
        ("sites: better less plain", {"better": 0.59}),
        ("sites: better less worse", {"worse": 0.63}),
        ("sites: presence, worse less plain", {"presence": 0.7}),
    ],
)
def test_each_condition_can_fail(condition: str, changes: dict[str, float]) -> None:
    assert not _passed(**changes)[condition]


def test_a_truth_that_reads_as_nothing_leaves_no_room_that_could_pass() -> None:
    nothing: Rows = [{"accuracy": 0.0, "presence": 0.0}] * 200
    found = {name: _rows(mean, name) for name, mean in GOOD.items()} | {"vae": nothing}
    rows = {row["condition"]: row for row in judged(found, {"plain": [0.6, 0.7], "picked": [0.5, 0.6]}, PICKS)}
    room = rows["room: picked / truth through the VAE"]
    assert (room["high"], room["passed"]) == (math.inf, False)


@pytest.mark.slow
def test_it_runs_on_an_untrained_tiny_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, picks = tmp_path / "weights", tmp_path / "picks.json"
    for name, module in load_parts(ARCHITECTURES["scenes-dit"], folder, "tiny").modules.items():
        save_weights(folder, name, module.state_dict())
    sites = {"guidance": 1, "enhance": {"preset": "stg-a", "sites": "#0"}}
    picks.write_text(json.dumps(PICKS.__dict__ | {"method": sites, "better": sites, "worse": sites}))
    words = ["--picks", str(picks), "--folder", str(folder), "--size", "tiny", "--device", "cpu", "--fit", "0"]
    main([*words, "--scenes", "2", "--steps", "2", "--batch", "2", "--out", str(tmp_path / "out")])
    assert "room: picked / truth through the VAE" in capsys.readouterr().out
