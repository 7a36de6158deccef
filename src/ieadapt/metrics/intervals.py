"""How sure a number is: percentile bootstrap intervals of means of paired differences, and of rank correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ieadapt.errors import UsageError

Numbers = Sequence[int | float] | np.ndarray
"""One value per unit."""
Units = Literal["drawn", "fixed"]
"""Whether the units are a sample of others like them, or all there are."""
LEAST_UNITS = 3
"""Units from which a mean is reported with an interval."""
LEAST = 4
"""Units below which a rank correlation is not worth an interval."""
CHUNK = 2**22
"""Comparisons made at a time."""


class Interval(NamedTuple):
    """A mean with the ends of its interval, in the unit of the values; NaN where there is no interval."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """`mean [low, high]`, every number with its sign; the mean alone where there is no interval."""
        return _with_ends(self.mean, self.low, self.high, f"+{spec or '.3f'}")

    def unsigned(self, spec: str = ".3f") -> str:
        """As `format`, signs only where numbers are negative."""
        return _with_ends(self.mean, self.low, self.high, spec)

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def _with_ends(value: float, low: float, high: float, spec: str) -> str:
    return f"{value:{spec}}" if math.isnan(low) else f"{value:{spec}} [{low:{spec}}, {high:{spec}}]"


def mean_interval(
    values: Numbers, *, least: int = 1, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of some values with its percentile bootstrap interval; arguments and errors as of `paired_interval`.

    Args:
        values: one finite value per unit.
        least: below so many values the mean has no interval: its ends are NaN.
        level: see `paired_interval`.
        resamples: see `paired_interval`.
        seed: see `paired_interval`.

    Example:
        >>> mean_interval([1.0, 1.0]).low, mean_interval([1.0, 1.0], least=3).low
        (1.0, nan)
    """
    interval = paired_interval(values, np.zeros(len(values)), level=level, resamples=resamples, seed=seed)
    return interval if len(values) >= least else interval._replace(low=math.nan, high=math.nan)


def paired_interval(
    after: Numbers,
    before: Numbers,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean of `after - before` over pairs, with its percentile bootstrap interval.

    Pairs (the same caption and seed, say) are drawn with replacement; what the two values of a pair share cancels out.
    With fewer than about ten pairs the interval is too narrow: it holds the true mean less often than `level` says.

    Args:
        after: one finite value per pair.
        before: one finite value per pair, in the same order.
        level: share of the resampled means inside the interval, in (0, 1).
        resamples: number of resamples.
        seed: seed of the resampling; the same seed gives the same interval.

    Returns:
        Mean difference and the two ends, in the unit of the values. Positive: `after` is larger.

    Raises:
        UsageError: the lengths differ, there is no pair, a value is not finite, or the level is outside (0, 1).

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Example:
        >>> interval = paired_interval([0.8, 0.9, 0.7], [0.7, 0.8, 0.6])
        >>> f"{interval:.2f}", interval.excludes_zero
        ('+0.10 [+0.10, +0.10]', True)
    """
    if len(after) != len(before) or len(after) == 0:
        raise UsageError(
            "paired values must come in pairs",
            expected="two equally long, non-empty sequences",
            got=f"{len(after)} and {len(before)} values",
        )
    ends = _percentiles(level)
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise UsageError("an interval needs finite values", got=f"{(~np.isfinite(differences)).sum()} that are not")
    drawn = np.random.default_rng(seed).integers(0, len(differences), size=(resamples, len(differences)))
    low, high = np.percentile(differences[drawn].mean(axis=1), ends)
    return Interval(float(differences.mean()), float(low), float(high))


class Correlation(NamedTuple):
    """Spearman's rho with the ends of its interval.

    Attributes:
        rho: in [-1, 1]; NaN where one side has no two different values.
        low: lower end.
        high: upper end.
        units: number of units.
    """

    rho: float
    low: float
    high: float
    units: int

    def __format__(self, spec: str) -> str:
        """`rho [low, high]`, every number with its sign; rho alone where there is no interval."""
        return _with_ends(self.rho, self.low, self.high, f"+{spec or '.2f'}")

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def spearman_interval(
    first: Numbers,
    measured: Float[np.ndarray, "unit clip"],
    *,
    groups: Numbers | None = None,
    units: Units = "drawn",
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Correlation:
    """Spearman's rho between a value per unit and the mean of its measurements, with a percentile bootstrap interval.

    Clips (prompt and seed) are drawn with replacement, and so are units (layers), both at once: the interval says what
    other layers of this sort and other clips could have given. With fewer than about ten units it is too narrow. With
    `units="fixed"` only clips are drawn: what these very layers would give on other clips.

    Args:
        first: one finite value per unit, such as the EP of a layer.
        measured: what each unit did on each clip; NaN where a clip is missing.
        groups: with these, ranks are taken within each group and around its mean, so that what differs between groups
            only (the resolution of a layer, say) does not count; a group of one unit says nothing.
        units: `drawn` or `fixed`.
        level: share of the resampled correlations inside the interval.
        resamples: number of resamples; those in which nothing differs are left out.
        seed: of the resampling.

    Raises:
        UsageError: the lengths differ, there are fewer than three units, a value is not finite, a unit has no clip, or
            the level is outside (0, 1).

    Source:
        Spearman (1904); ranks of ties are averaged. Within groups: a stratified form, ranks weighted by group size.
        Efron and Tibshirani, An Introduction to the Bootstrap (1993).

    Example:
        >>> measured = np.arange(6.0)[:, None] + np.array([0.0, 0.1])
        >>> f"{spearman_interval(range(6), measured):.1f}"
        '+1.0 [+1.0, +1.0]'
    """
    ends = _percentiles(level)
    present = np.isfinite(measured)
    if not present.any(axis=1).all():
        raise UsageError("a unit has no finite measurement", got=f"unit {int((~present.any(axis=1)).argmax())}")
    means = np.nanmean(np.where(present, measured, np.nan), axis=1)
    values = np.asarray(list(first), dtype=np.float64)
    labels = np.zeros(len(means)) if groups is None else np.asarray(groups, dtype=np.float64)
    _check_units(values, means, labels)
    rho, count = float(_rho(values[None], means[None], labels[None])[0]), len(values)
    random = np.random.default_rng(seed)
    drawn = {
        "drawn": random.integers(0, count, size=(resamples, count)),
        "fixed": np.tile(np.arange(count), (resamples, 1)),
    }[units]
    resampled = _in_chunks(values[drawn], _resampled_means(measured, present, drawn, random), labels[drawn])
    kept = resampled[np.isfinite(resampled)]
    if count < LEAST or len(kept) < resamples / 2:
        return Correlation(rho, float("nan"), float("nan"), count)
    low, high = np.percentile(kept, ends)
    return Correlation(rho, float(low), float(high), count)


def _resampled_means(
    measured: np.ndarray, present: np.ndarray, units: Int[np.ndarray, "resample unit"], random: np.random.Generator
) -> Float[np.ndarray, "resample unit"]:
    """The means of the drawn units over the drawn clips; NaN where none of a unit's clips was drawn."""
    clips = measured.shape[1]
    drawn = random.integers(0, clips, size=(len(units), clips))
    times = np.zeros((len(units), clips))
    np.add.at(times, (np.arange(len(units))[:, None], drawn), 1)
    sums, counts = times @ np.where(present, measured, 0).T, times @ present.T.astype(float)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return np.take_along_axis(means, units, axis=1)


def _in_chunks(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> Float[np.ndarray, " resample"]:
    size = max(1, CHUNK // first.shape[1] ** 2)
    starts = range(0, len(first), size)
    return np.concatenate([_rho(*(part[at : at + size] for part in (first, second, groups))) for at in starts])


def _rho(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> Float[np.ndarray, " resample"]:
    """Correlation of the ranks within groups, row by row."""
    same = groups[:, :, None] == groups[:, None, :]
    one, two = (_ranks_within(values, same) for values in (first, second))
    scale = np.sqrt((one**2).sum(1) * (two**2).sum(1))
    whole = np.isfinite(second).all(axis=1) & (scale > 0)
    return np.where(whole, (one * two).sum(1) / np.where(whole, scale, 1), np.nan)


def _ranks_within(values: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Ranks among the units of the same group, around the group's mean rank."""
    below = ((values[:, None, :] < values[:, :, None]) & same).sum(-1)
    equal = ((values[:, None, :] == values[:, :, None]) & same).sum(-1)
    return below + (equal + 1) / 2 - (same.sum(-1) + 1) / 2


def _check_units(values: np.ndarray, means: np.ndarray, labels: np.ndarray) -> None:
    if not len(values) == len(means) == len(labels) or len(values) < 3:
        raise UsageError(
            "a rank correlation needs pairs of values",
            expected="two equally long sequences of at least three values, and as many groups",
            got=f"{len(values)}, {len(means)} and {len(labels)}",
        )
    if not np.isfinite(values).all():
        raise UsageError("a rank correlation needs finite values", where="spearman_interval")


def _percentiles(level: float) -> tuple[float, float]:
    """The two ends between which this share of the values lies."""
    if not 0 < level < 1:
        raise UsageError("the level of an interval is a share", expected="between 0 and 1, ends excluded", got=level)
    tail = 50 * (1 - level)
    return tail, 100 - tail
