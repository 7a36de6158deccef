"""The edit configurations that are compared: published ones, controls, and the candidates for the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ieadapt.methods import EDIT_PRESETS, EditConfig

DEFAULT = "default"
"""`EditConfig()` as it is."""
COPY, RECONSTRUCTION, CEILING = "copy of the source", "reconstruction", "perfect edit through the VAE"
"""Rows without an edit: nothing changed, the source inverted and back, and the most that the model's VAE can show."""
WITHOUT_EDIT = (COPY, RECONSTRUCTION, CEILING)

BASE = EditConfig()


def candidates() -> dict[str, EditConfig]:
    """What the default is chosen among: start, residual, guidance and negative, mask, words, one step at a time."""
    found: dict[str, EditConfig] = {}
    for start in (0.0, 0.2, 0.35, 0.5, 0.6):
        for residual in (0.0, 1.0):
            found[f"start {start:g}, residual {residual:g}"] = replace(BASE, start=start, residual=residual)
    for weight in (1.5, 2.0, 4.5, 6.0):
        found[f"guidance {weight:g}"] = replace(BASE, guidance_scale=weight)
    for weight in (1.0, 2.0, 3.0):
        found[f"source prompt as negative, guidance {weight:g}"] = replace(
            BASE, guidance_scale=weight, negative="source"
        )
    for threshold in (0.15, 0.3, 0.5):
        found[f"difference mask {threshold:g}"] = replace(BASE, mask="difference", mask_threshold=threshold)
        found[f"difference mask {threshold:g}, start 0.2"] = replace(
            BASE, mask="difference", mask_threshold=threshold, start=0.2
        )
    found["guided until half"] = replace(BASE, guidance_window="0:0.5")
    found["words replaced"] = replace(BASE, words="replace")
    found["noise path"] = replace(BASE, method="noise-path")
    found["flowedit"] = replace(BASE, method="flowedit")
    return found


def injections() -> dict[str, EditConfig]:
    """Injection on top of the default, by EP and its controls, at equal start and for equal numbers of sites."""
    rules = {"low EP": "bottom=0.5", "high EP": "top=0.5"}
    found = {"inject all": replace(BASE, inject="all")}
    for kind in ("spatial", "temporal"):
        found[f"inject all {kind}"] = replace(BASE, inject=kind)
        for name, rule in rules.items():
            found[f"inject {kind} {name}"] = replace(BASE, inject=f"{kind}:{rule}")
        for seed in (0, 1, 2):
            found[f"inject {kind} random {seed}"] = replace(BASE, inject=f"{kind}:random=0.5", seed=seed)
    return found


def methods() -> dict[str, EditConfig]:
    """Every configuration by its name: the default, the presets, the candidates, the injections."""
    return {DEFAULT: BASE, **EDIT_PRESETS, **candidates(), **injections()}


def select(asked: str, known: Mapping[str, EditConfig] | None = None) -> list[str]:
    """Names of methods: `all`, a group (`presets`, `candidates`, `injections`), or names, with semicolons.

    Raises:
        ValueError: a name that is none of these.

    Example:
        >>> select("default; presets")[0]
        'default'
    """
    known = methods() if known is None else known
    groups: Mapping[str, Sequence[str]] = {
        "all": [*WITHOUT_EDIT, *known],
        "none": WITHOUT_EDIT,
        "presets": list(EDIT_PRESETS),
        "candidates": [DEFAULT, *candidates()],
        "injections": [DEFAULT, *injections()],
    }
    names: list[str] = []
    for part in filter(None, (each.strip() for each in asked.split(";"))):
        if part not in groups and part not in known and part not in WITHOUT_EDIT:
            raise ValueError(f"no method {part!r}; there are: {'; '.join([*groups, *WITHOUT_EDIT, *known])}")
        names += groups.get(part, [part])
    return list(dict.fromkeys(names))
