"""The short notation of settings: a name with its numbers, as in `identity`, `mix:0.5` or `linear:1:0`."""

from __future__ import annotations

from collections.abc import Sequence

from ieadapt.errors import UsageError


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
