"""Bootstrap intervals against known cases, their coverage, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ieadapt.errors import UsageError
from ieadapt.metrics.intervals import Correlation, Interval, paired_interval, spearman_interval


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


def spearman(first: list[float], second: list[float], groups: list[int] | None = None) -> float:
    """Rho alone, with one measurement per unit."""
    return spearman_interval(first, np.array(second, dtype=float)[:, None], groups=groups, resamples=2).rho


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 3], [9, 5, 1], -1.0),
        # d = (0, -1, -1, 2, 0): rho = 1 - 6 * 6 / (5 * 24)
        ([1, 2, 3, 4, 5], [10, 30, 40, 20, 50], 1 - 36 / 120),
        # ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): covariance 4.5, variances 4.5 and 5
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / math.sqrt(4.5 * 5)),
        # only order counts
        ([1, 10, 100, 1000], [0.1, 0.2, 0.3, 7], 1.0),
    ],
)
def test_cases_by_hand(first: list[float], second: list[float], expected: float) -> None:
    assert spearman(first, second) == pytest.approx(expected)
    assert spearman(second, first) == pytest.approx(expected)


def test_within_groups_what_differs_between_them_does_not_count() -> None:
    first, second, groups = [1, 2, 3, 11, 12, 13], [3, 2, 1, 13, 12, 11], [0, 0, 0, 1, 1, 1]
    assert spearman(first, second) > 0.5
    assert spearman(first, second, groups) == pytest.approx(-1)
    assert math.isnan(spearman([1, 2, 3], [1, 2, 3], [0, 1, 2]))


def test_values_all_equal_have_no_correlation() -> None:
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


@pytest.mark.parametrize(("first", "second"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 2])])
def test_too_few_or_unequal_values_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(UsageError, match="two equally long sequences of at least three values"):
        spearman(first, second)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UsageError, match="finite values"):
        spearman([1, 2, np.inf], [1, 2, 3])


def noisy(seed: int, units: int, slope: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    first = random.uniform(0, 100, units)
    return first, slope * first[:, None] / 100 + random.normal(0, 0.3, units)[:, None] + random.normal(
        0, 0.1, (units, 8)
    )


def test_the_interval_holds_the_estimate_and_is_repeatable() -> None:
    first, measured = noisy(0, 15, 1.0)
    found = spearman_interval(first, measured)
    assert found.low < found.rho < found.high
    assert found.rho == spearman(first, measured.mean(1))
    assert found == spearman_interval(first, measured)
    assert found.units == 15
    assert f"{found:.1f}" == f"{found.rho:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def test_a_strong_relation_excludes_zero_and_none_at_all_rarely_does() -> None:
    assert spearman_interval(*noisy(1, 20, 2.0)).excludes_zero
    by_chance = [spearman_interval(*noisy(seed, 20, 0.0), resamples=400).excludes_zero for seed in range(40)]
    assert sum(by_chance) <= 6


def test_few_units_give_no_interval() -> None:
    found = spearman_interval([1, 2, 3], np.arange(6.0).reshape(3, 2))
    assert found.rho == 1
    assert math.isnan(found.low)
    assert not found.excludes_zero


def test_missing_clips_are_left_out() -> None:
    first, measured = noisy(2, 12, 2.0)
    measured[3, :5] = np.nan
    assert spearman_interval(first, measured).rho == spearman(first, np.nanmean(measured, axis=1))
    measured[3] = np.nan
    with pytest.raises(UsageError, match="a unit has no finite measurement; got unit 3"):
        spearman_interval(first, measured)


def test_a_level_outside_the_open_interval_is_refused() -> None:
    with pytest.raises(UsageError, match="level of an interval"):
        spearman_interval([1, 2, 3, 4], np.ones((4, 1)), level=1.0)


def test_it_reads_as_text() -> None:
    assert f"{Correlation(0.5, -0.25, 0.75, 10)}" == "+0.50 [-0.25, +0.75]"


def test_an_interval_over_clips_only_is_about_these_units() -> None:
    """With clips that all agree nothing is left to be unsure of, however few the units."""
    measured = np.array([1.0, 3.0, 2.0, 5.0, 4.0])[:, None] + np.zeros(6)
    fixed = spearman_interval(range(5), measured, units="fixed")
    drawn = spearman_interval(range(5), measured)
    assert fixed.low == fixed.high == fixed.rho == pytest.approx(0.8)
    assert drawn.low < 0.8
