"""A screen is held against a study site by site: a perfect one has rho 1, and kinds earn nothing in `all`."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks import screen_validity
from benchmarks.screen_validity import Compared, compared, rows_of
from ieadapt.tasks.measure.profile import EntropyProfile

SITES = [(f"{kind}.{index}", kind) for kind in ("spatial", "temporal") for index in range(6)]
DAMAGE = np.array([1, 2, 3, 4, 5, 6, 60, 50, 40, 30, 20, 10]) / 100


def _study() -> tuple[pl.DataFrame, EntropyProfile]:
    """Four clips in which SSIM falls by the damage of each site, and EP falls along the sites of each kind."""
    cells, rows = [], []
    for order, (site, kind) in enumerate(SITES):
        shared = {"site": site, "kind": kind, "order": order, "head": 0, "step": 0, "branch": "cond", "videos": 1}
        rows.append({**shared, "n_keys": 8.0, "entropy": 1.0, "ep": 90.0 - order, "energy": 1.0 + order})
        for clip in range(4):
            place = {"prompt": f"p{clip}", "seed": 0, "sites": site, "head": None, "kind": kind, "rank": "each"}
            value = 1 - DAMAGE[order] + 0.001 * clip
            cells.append({**place, "perturbation": "uniform", "ep": 90.0 - order, "ssim": value})
    table = pl.DataFrame(cells, schema_overrides={"head": pl.Int32})
    return table, EntropyProfile.from_rows(rows)


def _passes(damage: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"site": site, "kind": kind, "head": None, "map": "uniform", "prompt": f"q{prompt}", "seed": 0, "step": step}
        | {"num_inference_steps": 20, "change": float(value) + prompt / 1000, "rise": 0.0, "lost": 0.0}
        for (site, kind), value in zip(SITES, damage, strict=True)
        for prompt in range(3)
        for step in (4, 9, 18)
    ]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen_validity, "RESAMPLES", 4)
    monkeypatch.setattr(screen_validity, "HALVES", 3)


@pytest.fixture
def lined_up() -> Compared:
    table, profile = _study()
    return compared(table, profile, _passes(DAMAGE), "uniform")


def test_sites_captions_and_clips_are_lined_up(lined_up: Compared) -> None:
    assert list(lined_up.kinds) == ["spatial"] * 6 + ["temporal"] * 6
    assert lined_up.damage.keys() == {"structure"}
    assert lined_up.damage["structure"][:, 0] == pytest.approx(DAMAGE)
    assert lined_up.screened["structure"].shape == (12, 3)
    assert lined_up.screened["structure"][:, 0] == pytest.approx(DAMAGE)
    assert list(lined_up.single["depth"]) == list(range(12))


def test_a_perfect_screen_and_the_trivial_predictors(lined_up: Compared) -> None:
    rows = rows_of(lined_up, "m", "uniform", 50.0, 4 * 260)
    found = {(row["kind"], row["predictor"]): row for row in rows}
    assert {row["effect"] for row in rows} == {"structure"}
    for kind in ("spatial", "temporal", "all"):
        assert found[kind, "screen"]["rho"] == pytest.approx(1)
        assert found[kind, "split-half"]["rho"] == pytest.approx(1)
    assert found["spatial", "depth"]["rho"] == pytest.approx(1)
    assert found["temporal", "depth"]["rho"] == pytest.approx(-1)
    assert found["all", "depth"]["rho"] == pytest.approx(0)
    assert found["all", "depth"]["raw_rho"] == pytest.approx(108 / 143)  # which earns by telling kinds apart
    assert found["spatial", "ep"]["rho"] == pytest.approx(-1)
    assert found["spatial", "depth"]["raw_rho"] is None
    assert found["all", "full-clips"]["forwards"] == 260  # one clip at least
    assert (found["all", "screen"]["forwards"], found["all", "screen"]["study_forwards"]) == (50.0, 1040)
    assert (found["all", "screen"]["sites"], found["spatial", "screen"]["sites"]) == (12, 6)


def test_a_screen_in_the_wrong_order_shows() -> None:
    table, profile = _study()
    rows = rows_of(compared(table, profile, _passes(1 - DAMAGE), "uniform"), "m", "uniform", 50.0, 1040)
    wrong = {row["kind"]: row["rho"] for row in rows if row["predictor"] == "screen"}
    assert wrong == pytest.approx({"spatial": -1, "temporal": -1, "all": -1})
