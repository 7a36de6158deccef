"""Rank correlation and how sure it is: Spearman's rho with a bootstrap interval over two kinds of units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ieadapt.errors import UsageError

Numbers = Sequence[int | float] | np.ndarray
"""One value per unit."""
Units = Literal["drawn", "fixed"]
"""Whether the units are a sample of others like them, or all there are."""
LEAST = 4
"""Units below which a rank correlation is not worth an interval."""
CHUNK = 2**22
"""Comparisons made at a time."""


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
        """`rho [low, high]`, every number with its sign."""
        spec = spec or ".2f"
        return f"{self.rho:+{spec}} [{self.low:+{spec}}, {self.high:+{spec}}]"

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def spearman(
    first: Numbers,
    second: Numbers,
    groups: Numbers | None = None,
) -> float:
    """Spearman's rank correlation: Pearson's correlation of the ranks.

    Args:
        first: one finite value per unit.
        second: one finite value per unit.
        groups: with these, ranks are taken within each group and around its mean, so that what differs between groups
            only (the resolution of a layer, say) does not count; a group of one unit says nothing.

    Returns:
        In [-1, 1]: 1 where both rise together. NaN where one side has no two different values to compare.

    Raises:
        UsageError: the lengths differ, there are fewer than three units, or a value is not finite.

    Source:
        Spearman (1904); ranks of ties are averaged. Within groups: a stratified form, ranks weighted by group size.

    Example:
        >>> spearman([1, 2, 3, 4], [10, 30, 20, 40])
        0.8
    """
    pair = _checked(first, second, 1)
    place = np.zeros(len(pair[0])) if groups is None else np.asarray(groups, dtype=np.float64)
    if len(place) != len(pair[0]):
        raise UsageError("as many groups as units are needed", expected=len(pair[0]), got=len(place))
    return float(_rho(pair[0][None], pair[1][None], place[None])[0])


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
        groups: as for `spearman`.
        units: `drawn` or `fixed`.
        level: share of the resampled correlations inside the interval.
        resamples: number of resamples; those in which nothing differs are left out.
        seed: of the resampling.

    Raises:
        UsageError: as `spearman`; a unit without a clip; a level outside (0, 1).

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993).

    Example:
        >>> measured = np.arange(6.0)[:, None] + np.array([0.0, 0.1])
        >>> f"{spearman_interval(range(6), measured):.1f}"
        '+1.0 [+1.0, +1.0]'
    """
    if not 0 < level < 1:
        raise UsageError("the level of an interval is a share", expected="between 0 and 1, ends excluded", got=level)
    there = np.isfinite(measured)
    if not there.any(axis=1).all():
        raise UsageError("a unit has no finite measurement", got=f"unit {int((~there.any(axis=1)).argmax())}")
    values, means = _checked(list(first), np.nanmean(np.where(there, measured, np.nan), axis=1), 1)
    place = np.zeros(len(values)) if groups is None else np.asarray(groups, dtype=np.float64)
    rho = float(_rho(values[None], means[None], place[None])[0])
    random = np.random.default_rng(seed)
    drawn_units = {
        "drawn": random.integers(0, len(values), size=(resamples, len(values))),
        "fixed": np.tile(np.arange(len(values)), (resamples, 1)),
    }[units]
    drawn = _resampled_means(measured, there, drawn_units, random)
    found = _in_chunks(values[drawn_units], drawn, place[drawn_units])
    kept = found[np.isfinite(found)]
    if len(values) < LEAST or len(kept) < resamples / 2:
        return Correlation(rho, float("nan"), float("nan"), len(values))
    tail = 50 * (1 - level)
    low, high = np.percentile(kept, [tail, 100 - tail])
    return Correlation(rho, float(low), float(high), len(values))


def _resampled_means(
    measured: np.ndarray, there: np.ndarray, units: Int[np.ndarray, "resample unit"], random: np.random.Generator
) -> Float[np.ndarray, "resample unit"]:
    """The means of the drawn units over the drawn clips; NaN where none of a unit's clips was drawn."""
    clips = measured.shape[1]
    drawn = random.integers(0, clips, size=(len(units), clips))
    times = np.zeros((len(units), clips))
    np.add.at(times, (np.arange(len(units))[:, None], drawn), 1)
    sums, counts = times @ np.where(there, measured, 0).T, times @ there.T.astype(float)
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


def _checked(first: Numbers, second: Numbers, axes: int) -> list[np.ndarray]:
    pair = [np.asarray(values, dtype=np.float64) for values in (first, second)]
    if any(values.ndim != axes for values in pair) or len(pair[0]) != len(pair[1]) or len(pair[0]) < 3:
        raise UsageError(
            "a rank correlation needs pairs of values",
            expected="two equally long sequences of at least three values",
            got=f"{len(pair[0])} and {len(pair[1])}",
        )
    if not all(np.isfinite(values).all() for values in pair):
        raise UsageError("a rank correlation needs finite values", where="spearman")
    return pair
