"""The bootstrap interval against a known case, its coverage, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from ieadapt.errors import UsageError
from ieadapt.metrics.intervals import Interval, paired_interval


def test_a_large_normal_sample_gives_the_textbook_interval() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(5.0, 3.0, size=400)
    after = before + rng.normal(0.2, 1.0, size=400)
    difference = after - before
    half = 1.96 * difference.std(ddof=1) / np.sqrt(400)
    interval = paired_interval(after, before)
    assert interval.mean == pytest.approx(difference.mean())
    assert interval.low == pytest.approx(difference.mean() - half, abs=0.01)
    assert interval.high == pytest.approx(difference.mean() + half, abs=0.01)


def test_two_pairs_have_three_possible_means() -> None:
    """Differences 0 and 1: the resampled mean is 0, .5 or 1 with probability 1/4, 1/2, 1/4."""
    assert paired_interval([1.0, 3.0], [1.0, 2.0]) == Interval(0.5, 0.0, 1.0)
    assert paired_interval([1.0, 3.0], [1.0, 2.0], level=0.4) == Interval(0.5, 0.5, 0.5)


def test_nine_in_ten_intervals_hold_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        differences = rng.normal(1.0, 2.0, size=30)
        interval = paired_interval(differences, np.zeros(30), resamples=1000, seed=trial)
        held += interval.low <= 1.0 <= interval.high
    assert 0.89 <= held / 200 <= 0.99


def test_what_pairs_share_cancels_out() -> None:
    shared = np.random.default_rng(1).normal(0, 100, size=12)
    assert paired_interval(shared + 0.5, shared) == pytest.approx((0.5, 0.5, 0.5))


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).normal(size=(2, 20))
    assert paired_interval(*values, seed=7) == paired_interval(*values, seed=7)
    assert paired_interval(*values, seed=7) != paired_interval(*values, seed=8)


@pytest.mark.parametrize(
    ("after", "before", "level", "words"),
    [
        ([], [], 0.95, "non-empty"),
        ([1.0], [1.0, 2.0], 0.95, "1 and 2 values"),
        ([1.0, float("nan")], [1.0, 2.0], 0.95, "finite"),
        ([1.0], [1.0], 95.0, "between 0 and 1"),
    ],
)
def test_what_it_refuses(after: list[float], before: list[float], level: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        paired_interval(after, before, level=level)


def test_it_prints_as_mean_and_interval() -> None:
    assert f"{Interval(0.1, -0.02, 0.3):.2f}" == "+0.10 [-0.02, +0.30]"
    assert not Interval(0.1, -0.02, 0.3).excludes_zero
