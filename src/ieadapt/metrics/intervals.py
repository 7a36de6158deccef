"""How sure a mean is: percentile bootstrap intervals for paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ieadapt.errors import UsageError


class Interval(NamedTuple):
    """A mean with the ends of its interval, in the unit of the values."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """`mean [low, high]`, every number with its sign."""
        spec = spec or ".3f"
        return f"{self.mean:+{spec}} [{self.low:+{spec}}, {self.high:+{spec}}]"

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def mean_interval(
    values: Sequence[float] | np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of some values with its percentile bootstrap interval; arguments and errors as of `paired_interval`.

    Example:
        >>> mean_interval([1.0, 1.0]).low
        1.0
    """
    return paired_interval(values, np.zeros(len(values)), level=level, resamples=resamples, seed=seed)


def paired_interval(
    after: Sequence[float] | np.ndarray,
    before: Sequence[float] | np.ndarray,
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
    if not 0 < level < 1:
        raise UsageError("the level of an interval is a share", expected="between 0 and 1, ends excluded", got=level)
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise UsageError("an interval needs finite values", got=f"{(~np.isfinite(differences)).sum()} that are not")
    drawn = np.random.default_rng(seed).integers(0, len(differences), size=(resamples, len(differences)))
    tail = 50 * (1 - level)
    low, high = np.percentile(differences[drawn].mean(axis=1), [tail, 100 - tail])
    return Interval(float(differences.mean()), float(low), float(high))
