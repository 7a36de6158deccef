"""The fixed sets of held-out scenes that models of `scenes` are judged on.

Settings are chosen on one set, values come from another that chose nothing, and the sealed sets are opened by
`benchmarks.sealed` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ieadapt.testbed import Scene, sample_scenes

SEEDS: Mapping[str, int] = {"choosing": 20_001, "confirming": 20_002}
SIZE = 400
"""Scenes of a set."""


def scene_set(name: str, n: int = SIZE) -> list[Scene]:
    """The first scenes of an open set, all of held-out combinations.

    Args:
        name: `choosing` or `confirming`.
        n: how many.

    Raises:
        KeyError: no such set; sealed ones have no name.

    Example:
        >>> scene_set("choosing", 2) == scene_set("choosing", 2)
        True
    """
    return sample_scenes(n, SEEDS[name], "heldout")


def seed_of_sealed_set(number: int) -> int:
    """The seed of a sealed set, derived from its number, so that nobody picks it."""
    return int.from_bytes(hashlib.sha256(f"sealed scenes {number}".encode()).digest()[:6], "big")
