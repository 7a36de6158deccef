"""The edit configurations that are compared: published ones, controls, and the candidates for the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ieadapt.methods import EDIT_PRESETS, EditConfig
from ieadapt.testbed.edits import EditPair

DEFAULT = "default"
"""`EditConfig()` as it is."""
COPY, RECONSTRUCTION, CEILING = "copy of the source", "reconstruction", "perfect edit through the VAE"
"""Rows without an edit: nothing changed, the source inverted and back, and the most that the model's VAE can show."""
WITHOUT_EDIT = (COPY, RECONSTRUCTION, CEILING)

BASE = EditConfig()
CHANGED = "CHANGED"
"""Stands in a mask for the words that a pair changes."""


def candidates() -> dict[str, EditConfig]:
    """What the default is chosen among: where it starts, and what keeps the rest of the clip in place."""
    found: dict[str, EditConfig] = {}

    def add(name: str, **changes: Any) -> None:
        found[name] = replace(BASE, **changes)

    for start in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        for residual in (0.0, 0.5, 1.0):
            add(f"start {start:g}, residual {residual:g}", start=start, residual=residual)
    for start in (0.2, 0.3):
        for weight in (2.0, 4.5, 6.0, 9.0):
            add(f"start {start:g}, guidance {weight:g}", start=start, guidance_scale=weight)
        for weight in (2.0, 3.0, 4.5):
            add(f"start {start:g}, negative source {weight:g}", start=start, guidance_scale=weight, negative="source")
        add(f"start {start:g}, guided until half", start=start, guidance_window="0:0.5")
        add(f"start {start:g}, words replaced", start=start, words="replace")
    for weight in (1.5, 3.0):
        add(f"start 0.2, source guided {weight:g}", start=0.2, source_guidance=weight)
    for start in (0.0, 0.2):
        for threshold in (0.15, 0.3, 0.5):
            name = f"start {start:g}, difference mask {threshold:g}"
            add(name, start=start, mask="difference", mask_threshold=threshold)
    for start in (0.2, 0.4):
        add(f"start {start:g}, mask of the changed words", start=start, mask=f"cross:{CHANGED}")
    for start in (0.2, 0.3, 0.4, 0.5):
        add(f"start {start:g}, noise path", start=start, method="noise-path")
        add(f"start {start:g}, fresh noise", start=start, method="flowedit")
        name = f"start {start:g}, noise path, difference mask"
        add(name, start=start, method="noise-path", mask="difference")
        add(f"{name} 0.15", start=start, method="noise-path", mask="difference", mask_threshold=0.15)
        add(f"start {start:g}, noise path, residual 0", start=start, method="noise-path", residual=0.0)
    return found


def suited(config: EditConfig, pair: EditPair) -> EditConfig:
    """The configuration for one pair: the words that a mask follows are those that the edit changes, and its object.

    Example:
        >>> from ieadapt.testbed import Scene
        >>> source = Scene("big", "red", "star", "left", "hills")
        >>> pair = EditPair("colour", 0, source, source.replace(colour="blue"))
        >>> suited(EditConfig(mask="cross:CHANGED"), pair).mask
        'cross:red+blue+star'
    """
    if config.mask_words != (CHANGED,):
        return config
    values = [getattr(scene, pair.kind) for scene in (pair.source, pair.target)]
    words = " ".join(values if pair.kind == "background" else [*values, pair.source.shape]).split()
    return replace(config, mask="cross:" + "+".join(dict.fromkeys(words)))


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
