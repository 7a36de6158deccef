"""The edit configurations that are compared: published ones, controls, and the candidates for the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ieadapt.tasks.edit.config import EDIT_PRESETS, EditConfig
from ieadapt.testbed.edits import EditPair

DEFAULT = "default"
"""`EditConfig()` as it is."""
COPY, RECONSTRUCTION, CEILING = "copy of the source", "reconstruction", "perfect edit through the VAE"
"""Rows without an edit: nothing changed, the source inverted and back, and the most that the model's VAE can show."""
WITHOUT_EDIT = (COPY, RECONSTRUCTION, CEILING)

BASE = EditConfig()
PLAIN = replace(EDIT_PRESETS["inversion"], start=0.1, residual=1.0, inject_window="0:1")
"""What the candidates change: source and target from the inverted noise, tied by nothing but the residual."""
NO_MAPS = "inject none"
CHANGED = "CHANGED"
"""Stands in a mask for the words that a pair changes."""


def candidates() -> dict[str, EditConfig]:
    """What the default is chosen among: where it starts, and what keeps the rest of the clip in place."""
    return {**_plain_candidates(), **_tied_candidates(), **_temporal_candidates()}


def _plain_candidates() -> dict[str, EditConfig]:
    """Start, residual, guidance, masks and noise paths, with no attention map touched."""
    found = {
        f"start {start:g}, residual {residual:g}": replace(PLAIN, start=start, residual=residual)
        for start, residual in ((0.0, 1.0), (0.1, 0.0), *((start, 1.0) for start in (0.1, 0.2, 0.3, 0.4, 0.5)))
    }  # a refined inversion leaves next to nothing to correct, so that `residual` is compared at one start only
    at = replace(PLAIN, start=0.2)
    for weight in (2.0, 4.5, 6.0):
        found[f"start 0.2, guidance {weight:g}"] = replace(at, guidance_scale=weight)
    for weight in (2.0, 3.0):
        found[f"start 0.2, negative source {weight:g}"] = replace(at, guidance_scale=weight, negative="source")
    for threshold in (0.15, 0.3):
        name = f"start 0.2, difference mask {threshold:g}"
        found[name] = replace(at, mask="difference", mask_threshold=threshold)
    found["start 0.2, mask of the changed words"] = replace(at, mask=f"cross:{CHANGED}")
    for start in (0.2, 0.4):
        noise = replace(at, start=start, method="noise-path")
        found[f"start {start:g}, noise path"] = noise
        found[f"start {start:g}, noise path, difference mask"] = replace(noise, mask="difference")
        found[f"start {start:g}, fresh noise"] = replace(noise, method="flowedit")
    return found


def _tied_candidates() -> dict[str, EditConfig]:
    """Shared words keep the source's cross-attention maps, alone and with the source's other maps."""
    words = replace(PLAIN, words="replace")
    maps = replace(words, inject="all", inject_branch="both")
    found: dict[str, EditConfig] = {}
    for start in (0.0, 0.1, 0.2, 0.3):
        found[f"start {start:g}, words"] = replace(words, start=start)
        found[f"start {start:g}, words, all maps"] = replace(maps, start=start)
    for start in (0.1, 0.2):
        found[f"start {start:g}, all maps"] = replace(maps, start=start, words="none")
        found[f"start {start:g}, words, all maps, cond rows"] = replace(maps, start=start, inject_branch="cond")
        for kind in ("spatial", "temporal"):
            found[f"start {start:g}, words, {kind} maps"] = replace(maps, start=start, inject=kind)
        found[f"start {start:g}, words, all maps, noise path"] = replace(maps, start=start, method="noise-path")
    at = replace(maps, start=0.1)
    changes: dict[str, dict[str, Any]] = {
        "guidance 2": {"guidance_scale": 2.0},
        "guidance 4.5": {"guidance_scale": 4.5},
        "guidance 6": {"guidance_scale": 6.0},
        "source guided": {"source_guidance": 3.0},
        "residual 0": {"residual": 0.0},
        "maps until half": {"inject_window": "0:0.5"},
        "words until half": {"words_window": "0:0.5"},
        "words all along": {"words_window": "0:1"},
        "difference mask": {"mask": "difference"},
        "mask of the changed words": {"mask": f"cross:{CHANGED}"},
    }
    return found | {f"start 0.1, words, all maps, {name}": replace(at, **change) for name, change in changes.items()}


def _temporal_candidates() -> dict[str, EditConfig]:
    """Shared words and the source's temporal maps: motion is held, while what a place shows is free to change."""
    base = replace(PLAIN, words="replace", inject="temporal", inject_branch="both")
    fresh = replace(base, method="flowedit", start=0.2)
    half, whole = "0:0.5", {"start": 0.0}
    changes: dict[str, dict[str, Any]] = {
        "start 0": whole,
        "start 0, guidance 4.5": whole | {"guidance_scale": 4.5},
        "start 0, guidance 6": whole | {"guidance_scale": 6.0},
        "start 0, words until half": whole | {"words_window": half},
        "start 0, maps until half": whole | {"inject_window": half},
        "start 0, guidance 4.5, maps until half": whole | {"guidance_scale": 4.5, "inject_window": half},
        "start 0, guidance 6, words until half": whole | {"guidance_scale": 6.0, "words_window": half},
        "start 0, guidance 4.5, words until half": whole | {"guidance_scale": 4.5, "words_window": half},
        "start 0, no words": whole | {"words": "none"},
        "start 0.3": {"start": 0.3},
        "guidance 4.5": {"guidance_scale": 4.5},
        "guidance 6": {"guidance_scale": 6.0},
        "source guided": {"source_guidance": 3.0},
        "words all along": {"words_window": "0:1"},
        "words until half": {"words_window": half},
        "difference mask": {"mask": "difference"},
        "mask of the changed words": {"mask": f"cross:{CHANGED}"},
        "noise path": {"method": "noise-path"},
    }
    found = {f"words, temporal maps, {name}": replace(base, **change) for name, change in changes.items()}
    windows: dict[str, dict[str, Any]] = {
        "words until half": {"words_window": half},
        "maps until half": {"inject_window": half},
        "words and maps until half": {"words_window": half, "inject_window": half},
        "maps until half, guidance 4.5": {"inject_window": half, "guidance_scale": 4.5},
    }
    for name, change in windows.items():
        found[f"fresh noise, words, temporal maps, start 0.1, {name}"] = replace(fresh, start=0.1, **change)
    found["words, temporal maps, noise path, start 0"] = replace(base, method="noise-path", start=0.0)
    found["fresh noise, words"] = replace(fresh, inject="none")
    for tied, config in (("words, temporal maps", fresh), ("temporal maps", replace(fresh, words="none"))):
        found[f"fresh noise, {tied}"] = config
        for start in (0.0, 0.1):
            found[f"fresh noise, {tied}, start {start:g}"] = replace(config, start=start)
        found[f"fresh noise, {tied}, start 0.1, guidance 4.5"] = replace(config, start=0.1, guidance_scale=4.5)
    return found


def for_pair(config: EditConfig, pair: EditPair) -> EditConfig:
    """The configuration for one pair: the words that a mask follows are those that the edit changes, and its object.

    Example:
        >>> from ieadapt.testbed import Scene
        >>> source = Scene("big", "red", "star", "left", "hills")
        >>> pair = EditPair("colour", 0, source, source.replace(colour="blue"))
        >>> for_pair(EditConfig(mask="cross:CHANGED"), pair).mask
        'cross:red+blue+star'
    """
    if config.mask_words != (CHANGED,):
        return config
    values = [getattr(scene, pair.kind) for scene in (pair.source, pair.target)]
    words = " ".join(values if pair.kind == "background" else [*values, pair.source.shape]).split()
    return replace(config, mask="cross:" + "+".join(dict.fromkeys(words)))


def injections() -> dict[str, EditConfig]:
    """The default with other sites injected: by EP and its controls, at equal start and for equal numbers of sites."""
    found = {NO_MAPS: replace(BASE, inject="none"), "inject all": replace(BASE, inject="all")}
    found["inject coarse"] = replace(BASE, inject="coarse")
    for where, kind in (("any", ""), ("spatial", "spatial:"), ("temporal", "temporal:")):
        for name, rule in (("low EP", "bottom=0.5"), ("high EP", "top=0.5")):
            found[f"inject {where} {name}"] = replace(BASE, inject=f"{kind}{rule}")
        for seed in (0, 1, 2):
            found[f"inject {where} random {seed}"] = replace(BASE, inject=f"{kind}random=0.5", seed=seed)
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
