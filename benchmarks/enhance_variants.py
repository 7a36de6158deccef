"""The variants that the enhancement sweep compares: one row each, with the group it stands for and its controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.testbed.generating import PLAIN, Variant, baseline
from ieadapt.tasks.enhance.config import EnhanceConfig

__all__ = ["PLAIN", "VARIANTS", "Variant"]


def entropy(kind: str, rule: str, amount: str, **changes: Any) -> dict[str, Variant]:
    """An entropy-chosen variant with its controls: as many sites at random, and at random within each resolution."""
    settings = {"start": 0.0, **changes}
    guidance_scale = settings.pop("guidance_scale", None)
    told = ", ".join(f"{name} {value}" for name, value in changes.items())
    controls: dict[str, Variant] = {}
    for seed in (0, 1):
        for drawn in ("random", "level-random"):
            name = f"{kind}:{drawn}={amount} #{seed}" + (f", {told}" if told else "")
            sites = EnhanceConfig(sites=f"{kind}:{drawn}={amount}", seed=seed, **settings)
            controls[name] = Variant("control", sites, guidance_scale)
    name = f"{kind}:{rule}={amount}" + (f", {told}" if told else "")
    config = EnhanceConfig(sites=f"{kind}:{rule}={amount}", **settings)
    return {name: Variant("entropy", config, guidance_scale, controls=tuple(controls)), **controls}


TEMPORAL, SPATIAL = "temporal/joint", "spatial/joint"

VARIANTS: Mapping[str, Variant] = {
    PLAIN: Variant("plain"),
    **{f"plain, guidance {scale:g}": Variant("plain", guidance_scale=scale) for scale in (1.5, 2.0, 4.0, 6.0)},
    "plain, 1.25 x steps": Variant("plain", steps=1.25),
    "plain, 1.5 x steps": Variant("plain", steps=1.5),
    **{
        f"plain, 1.5 x steps, guidance {scale:g}": Variant("plain", guidance_scale=scale, steps=1.5)
        for scale in (1.5, 2.0, 4.0, 6.0)
    },
    **entropy(TEMPORAL, "top", "0.5"),
    **entropy(TEMPORAL, "top", "0.5", scale=0.5),
    **entropy(TEMPORAL, "top", "0.5", scale=2.0),
    **entropy(TEMPORAL, "top", "3"),
    **entropy(TEMPORAL, "top", "3", scale=2.0),
    **entropy(TEMPORAL, "bottom", "0.5"),
    **entropy(TEMPORAL, "bottom", "3"),
    **entropy(TEMPORAL, "middle", "0.5"),
    **entropy(TEMPORAL, "middle", "3"),
    **entropy(TEMPORAL, "middle", "3", scale=2.0),
    **entropy(TEMPORAL, "level-top", "0.5"),
    **entropy(TEMPORAL, "energy-top", "0.5"),
    **entropy(TEMPORAL, "energy-bottom", "0.5"),
    **entropy(TEMPORAL, "top", "0.5", stop=0.3),
    **entropy(TEMPORAL, "top", "0.5", start=0.5),
    **entropy(TEMPORAL, "top", "0.5", start=0.5, scale=0.5),
    **entropy(TEMPORAL, "top", "0.5", start=0.5, stop=0.9),
    **entropy(TEMPORAL, "bottom", "0.5", start=0.5),
    **entropy(TEMPORAL, "top", "3", start=0.5),
    **entropy("temporal+spatial/joint", "top", "0.5", start=0.5),
    **entropy(TEMPORAL, "top", "0.5", rescale=0.7),
    **entropy(TEMPORAL, "top", "0.5", guidance_scale=2.0),
    **entropy(TEMPORAL, "top", "0.5", guidance_scale=2.0, perturbation="mix:0.5"),
    **entropy(SPATIAL, "top", "0.5", guidance_scale=2.0, perturbation="blur:inf"),
    **entropy(TEMPORAL, "top", "0.5", entropy="online:2"),
    **entropy(TEMPORAL, "top", "0.5", heads="top=0.5"),
    **entropy(TEMPORAL, "top", "0.5", perturbation="uniform"),
    **entropy(TEMPORAL, "top", "0.5", perturbation="temperature:2"),
    **entropy(TEMPORAL, "top", "0.5", perturbation="mix:0.5"),
    **entropy(SPATIAL, "top", "0.5"),
    **entropy(SPATIAL, "top", "0.5", scale=0.5),
    **entropy(SPATIAL, "top", "3"),
    **entropy(SPATIAL, "bottom", "0.5"),
    **entropy(SPATIAL, "middle", "3"),
    **entropy(SPATIAL, "middle", "3", scale=2.0),
    **entropy(SPATIAL, "energy-top", "0.5"),
    **entropy(SPATIAL, "top", "0.5", perturbation="blur:inf"),
    **entropy(SPATIAL, "top", "0.5", perturbation="uniform", scale=2.0),
    **entropy(SPATIAL, "top", "0.5", perturbation="temperature:2"),
    **entropy("temporal+spatial/joint", "top", "0.5"),
    **entropy(TEMPORAL, "top", "0.5", mode="direct", perturbation="uniform", scale=0.2),
    **entropy(TEMPORAL, "top", "0.5", mode="direct", perturbation="temperature:0.67"),
    **entropy(SPATIAL, "top", "0.5", mode="direct", perturbation="temperature:0.67"),
    **entropy(SPATIAL, "top", "0.5", mode="direct", perturbation="uniform", scale=0.2),
    **baseline("pag", scale=1.0),
    **baseline("pag", scale=3.0),
    **baseline("seg", scale=1.0),
    **baseline("seg", scale=3.0),
    **baseline("stg-a", scale=1.0),
    **baseline("stg-a", scale=2.0),
    **baseline("stg-r", scale=1.0),
    **baseline("stg-r", scale=2.0),
    **baseline("enhance-a-video"),
    **baseline("freeu"),
}
"""Identity at scale 1 on every step unless the name says otherwise."""
