"""The rules of a tune, on numbers alone: halves, rounds of the race, what n can show, and the verdict."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ieadapt.metrics.intervals import Interval, mean_interval
from ieadapt.notation import counted

SURVIVORS = 3
"""At most so many are left when all of the first half was seen."""
POWER = 1.959964 + 0.841621
"""Standard errors between zero and an effect that 80 of 100 experiments show at the 5 % level, two-sided."""
SPREAD_THAT_MATTERS = 0.2
"""Of the spread over prompts: the smallest gain that matters, unless it is said."""
TOLERATED = 0.1
"""Share of plain's mean by which a guard may get worse."""

Word = Literal["confirmed", "refuted", "undecided"]


def halves(prompts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Different prompts in two halves by their hash: equal prompts stay together, and order does not count.

    Example:
        >>> one, two = halves(["a", "b", "c", "a", "d"])
        >>> len(one), len(two), sorted(one + two)
        (2, 2, ['a', 'b', 'c', 'd'])
    """
    hashed = sorted(set(prompts), key=lambda prompt: hashlib.sha256(prompt.encode()).hexdigest())
    middle = (len(hashed) + 1) // 2
    return hashed[:middle], hashed[middle:]


@dataclass(frozen=True)
class Round:
    """A round of the race: so many candidates, each judged on so many prompts, those of earlier rounds among them."""

    candidates: int
    prompts: int


def rounds(candidates: int, prompts: int, survivors: int = SURVIVORS) -> list[Round]:
    """Successive halving: each round has half the candidates and twice the prompts; the last has all prompts.

    Example:
        >>> rounds(6, 30)
        [Round(candidates=6, prompts=15), Round(candidates=3, prompts=30)]
    """
    counts = [candidates]
    while counts[-1] > survivors:
        counts.append(max(survivors, counts[-1] // 2))
    last = len(counts) - 1
    return [Round(count, max(2, math.ceil(prompts / 2 ** (last - number)))) for number, count in enumerate(counts)]


def best_of(gains: Mapping[str, Sequence[float]], count: int) -> list[str]:
    """The names of the largest mean gains, the best first; the earlier one where they are equal."""
    order = {name: index for index, name in enumerate(gains)}
    return sorted(gains, key=lambda name: (-float(np.mean(gains[name])), order[name]))[:count]


def detectable(spread: float, prompts: int) -> float:
    """The smallest mean difference that so many prompts show, with 80 % power at the 5 % level.

    Args:
        spread: standard deviation of the paired differences over prompts.
        prompts: how many.

    Example:
        >>> round(detectable(0.1, 25), 3)
        0.056
    """
    return POWER * spread / math.sqrt(prompts)


def prompts_for(effect: float, spread: float) -> int:
    """Prompts that show an effect with 80 % power.

    Example:
        >>> prompts_for(0.056, 0.1)
        26
    """
    return math.ceil((POWER * spread / effect) ** 2)


@dataclass(frozen=True)
class Comparison:
    """One comparison on the second half: gains over prompts, positive where the candidate is better.

    Attributes:
        against: what it is compared with.
        gains: mean over seeds, prompt by prompt.
    """

    against: str
    gains: tuple[float, ...]

    @property
    def interval(self) -> Interval:
        """The mean gain with its 95 % interval over prompts."""
        return mean_interval(self.gains)


@dataclass(frozen=True)
class Verdict:
    """What a tune has shown.

    Attributes:
        word: `confirmed`, `refuted` or `undecided`.
        sites: `the sites matter` or `not shown to matter`; empty where that was not asked.
        sentence: the same for a reader, with what n can show and what more prompts would do.
    """

    word: Word
    sites: str
    sentence: str


def judge(
    tests: Sequence[Comparison],
    guards: Mapping[str, Interval],
    spread: float,
    matters: float,
    *,
    draws: Comparison | None = None,
) -> Verdict:
    """The verdict of the second half.

    Args:
        tests: against plain at equal passes, then against plain at its best guidance, in this order; the second is
            looked at only where the first holds.
        guards: how much worse each guard got, in shares of plain's mean, positive where worse.
        spread: of the paired differences in the first half.
        matters: the smallest gain that matters.
        draws: against the mean of random sites; looked at only where both tests hold.
    """
    failed = next((test for test in tests if test.interval.low <= 0), None)
    if failed is not None:
        return _unproven(failed, spread, matters)
    worse = [name for name, interval in guards.items() if interval.high > TOLERATED]
    if worse:
        doubt = f"The gain holds, but {', '.join(worse)} may be more than {TOLERATED:.0%} worse: "
        return Verdict("undecided", "", f"{doubt}the metric may have been fooled. Look at the videos.")
    sentence = f"Better than {tests[-1].against} by {tests[-1].interval:.4g}."
    if draws is None:
        return Verdict("confirmed", "", sentence)
    if draws.interval.low > 0:
        better = "Its sites are better than random ones of the same resolutions."
        return Verdict("confirmed", "the sites matter", f"{sentence} {better}")
    unsure = "That its sites are better than random ones is not shown."
    return Verdict("confirmed", "not shown to matter", f"{sentence} {unsure}")


def _unproven(failed: Comparison, spread: float, matters: float) -> Verdict:
    """The verdict where a comparison does not show a gain."""
    begin, number = f"Against {failed.against}: {failed.interval:.4g}", len(failed.gains)
    if failed.interval.high < matters:
        return Verdict("refuted", "", f"{begin}, less than the {matters:.3g} that matter.")
    more, shown = max(0, prompts_for(matters, spread) - number), detectable(spread, number)
    show = f"{counted(number, 'prompt')} show gains from {shown:.3g} on; {more} more would show {matters:.3g}."
    return Verdict("undecided", "", f"{begin}. {show}")
