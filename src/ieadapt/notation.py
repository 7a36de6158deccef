"""How settings, numbers and times are written: `identity`, `mix:0.5` or `linear:1:0`; "1 video", "2 videos"; 30m."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

from ieadapt.errors import UsageError

Scope = Literal["video", "video-renormalised", "all"]
"""Which part of the map is replaced, see `ieadapt.functional.replacements`."""
PERTURBATION_FORMS = (
    *("identity", "identity:WEIGHT", "uniform", "mix:WEIGHT", "temperature:T", "blur:SIGMA"),
    *("shuffle", "shuffle:SEED", "skip"),
)
"""How each is written; `blur:inf` is a blur without limit."""
_BUDGET = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_term(text: str, forms: Sequence[str], what: str) -> tuple[str, tuple[float, ...]]:
    """Read a name with its numbers.

    Args:
        text: as typed.
        forms: every form that is known: a name, and a word for each number, such as `mix:WEIGHT`.
        what: what is read, for the error.

    Returns:
        The name and its numbers.

    Raises:
        UsageError: the text has none of the forms; they are listed.

    Example:
        >>> parse_term("cosine:1:0.5", ["constant", "cosine", "cosine:A:B"], "schedule")
        ('cosine', (1.0, 0.5))
    """
    name, *parts = text.strip().split(":")
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        numbers = None
    if numbers is None or not any(form.split(":")[0] == name and form.count(":") == len(numbers) for form in forms):
        raise UsageError(f"unknown {what}", expected=", ".join(forms), got=text)
    return name, numbers


def counted(number: int | float, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "site"), counted(1200, "video"), counted(2, "pass")
        ('1 site', '1,200 videos', '2 passes')
    """
    return f"{number:,.0f} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def format_duration(seconds: int | float) -> str:
    """A time as a person says it.

    Example:
        >>> format_duration(42), format_duration(1260), format_duration(148_000)
        ('42 s', '21 min', '41 h')
    """
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.{0 if seconds >= 36000 else 1}f} h"


def parse_seconds(text: str, where: str = "--budget") -> float:
    """Read a time such as `90s`, `30m` or `2h`, in seconds.

    Raises:
        UsageError: it is none.

    Example:
        >>> parse_seconds("1.5h")
        5400.0
    """
    match = _BUDGET.fullmatch(text.strip())
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match else 0.0
    if not match or not math.isfinite(seconds) or seconds <= 0:
        raise UsageError("not a time", expected="a number with s, m or h, such as 30m", got=text, where=where)
    return seconds
