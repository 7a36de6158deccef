"""The schedule of a scale: a factor for every step of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ieadapt.errors import UsageError
from ieadapt.notation import parse_term

SCHEDULE_FORMS = ("constant", "linear:A:B", "cosine", "cosine:A:B", "one factor per step with commas")
_SHAPES: Mapping[str, Callable[[float, float, float], float]] = {
    "constant": lambda first, last, way: first,
    "linear": lambda first, last, way: first + (last - first) * way,
    "cosine": lambda first, last, way: last + (first - last) * (1 + math.cos(math.pi * way)) / 2,
}


@dataclass(frozen=True)
class Schedule:
    """A factor >= 0 for every step of a run: a shape between two ends, or one factor per step.

    Attributes:
        shape: `constant`, `linear` or `cosine` (half a wave).
        first: factor of the first step.
        last: factor of the last step.
        listed: one factor per step instead of a shape.

    Example:
        >>> Schedule.parse("linear:1:0").factors(3)
        [1.0, 0.5, 0.0]
    """

    shape: str = "constant"
    first: int | float = 1.0
    last: int | float = 0.0
    listed: tuple[int | float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read `constant`, `linear:A:B`, `cosine[:A:B]`, or factors with commas.

        Raises:
            UsageError: none of these, or a factor that is negative or not finite.
        """
        try:
            schedule = cls(listed=tuple(float(part) for part in text.split(",")))
        except ValueError:
            name, ends = parse_term(text, SCHEDULE_FORMS[:-1], "schedule of the scale")
            first, last = ends or (1.0, 0.0)
            schedule = cls(name, first, last)
        factors = (*schedule.listed, schedule.first, schedule.last)
        if not all(math.isfinite(factor) and factor >= 0 for factor in factors):
            raise UsageError("a factor of the scale's schedule is out of range", expected=">= 0", got=text)
        return schedule

    def factors(self, steps: int) -> list[int | float]:
        """The factor of every step of a run of so many.

        Raises:
            UsageError: one factor per step was given, and not for so many steps.
        """
        if not self.listed:
            return [_SHAPES[self.shape](self.first, self.last, step / max(steps - 1, 1)) for step in range(steps)]
        if len(self.listed) != steps:
            raise UsageError(
                "the schedule of the scale has another length than the run",
                expected=f"{steps} factors, one per step",
                got=f"{len(self.listed)}",
            )
        return list(self.listed)
