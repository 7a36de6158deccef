"""Telling someone how far a run is: a run announces its stages and reports steps; who shows them is not its concern."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

Stages = Callable[[str], Progress]
"""Called with the name of a stage that begins; returns where its steps are reported."""


def silent(stage: str) -> Progress:
    """Stages that nobody watches.

    Example:
        >>> silent("measuring")(1, 8)
    """
    return lambda done, total: None
