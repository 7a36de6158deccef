"""The arms of a tune: ways of generating, plain or enhanced, and the enhancements that are raced by default."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ieadapt.attention import AttentionSite
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.enhance.config import AUTO, EnhanceConfig

DRAWS = 5
"""Random choices of sites per prompt, matched by resolution, that a chosen set of sites is compared with."""
SCALES = (0.5, 1.5, 2.0)
"""Factors on the guidance scale at which plain generation is tried."""
KINDS = ("spatial", "temporal", "joint")


@dataclass(frozen=True)
class Arm:
    """A way of generating.

    Attributes:
        name: in tables.
        enhance: the enhancement; None for plain.
        guidance_scale: of plain generation at another scale; None is the run's own.
        steps: denoising steps; None is the run's own number.
        shift: added to every seed. A plain arm with a shift is no better than plain: it tells how often luck wins.
    """

    name: str
    enhance: EnhanceConfig | None = None
    guidance_scale: int | float | None = None
    steps: int | None = None
    shift: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What its videos depend on, beside the settings of the run."""
        own = {"guidance": self.guidance_scale, "steps": self.steps, "shift": self.shift}
        return {"enhance": None if self.enhance is None else repr(self.enhance), **own}

    def generation(self, base: GenerationConfig) -> GenerationConfig:
        """The settings of its runs."""
        return dataclasses.replace(
            base,
            num_inference_steps=self.steps or base.num_inference_steps,
            guidance_scale=base.guidance_scale if self.guidance_scale is None else self.guidance_scale,
        )

    def plain_steps(self, base: GenerationConfig) -> int:
        """Steps of a plain run with as many network passes."""
        steps = self.steps or base.num_inference_steps
        return steps if self.enhance is None else self.enhance.matched_steps(steps, guided=guided(base))

    def acts_in(self, steps: int) -> bool:
        """Whether a run of so many steps has one inside its window."""
        return self.enhance is None or any(self.enhance.window.contains(step, steps) for step in range(steps))

    def draw(self, seed: int) -> Arm:
        """The same with other sites, as many at each resolution, drawn by this seed.

        Raises:
            ValueError: it chooses no sites.
        """
        if not self.chooses_sites or self.enhance is None:
            raise ValueError(f"{self.name} chooses no sites")
        sites = AUTO if self.enhance.sites == "auto" else self.enhance.sites
        other = dataclasses.replace(self.enhance, sites=f"random-as:{sites}", seed=seed)
        return dataclasses.replace(self, name=f"{self.name}, random sites", enhance=other)

    @property
    def chooses_sites(self) -> bool:
        """Whether it acts on chosen attention sites, so that others could be chosen."""
        return self.enhance is not None and self.enhance.adaptation.acts_on == "sites"


def guided(generation: GenerationConfig) -> bool:
    """Whether a run has an unconditional branch: guidance is on, or the pipeline's default is taken."""
    return generation.guidance_scale is None or generation.guidance_scale > 1


def default_candidates(sites: Sequence[AttentionSite], *, screened: bool, guidance: bool) -> list[Arm]:
    """The enhancements that are raced, the most promising first, so that a small budget takes the first ones.

    Args:
        sites: of the model.
        screened: whether the profile holds screened effects, by which sites can be chosen too.
        guidance: whether runs are guided; without, ways of summing two predictions are left out.
    """
    kinds = [kind for kind in KINDS if kind in {site.kind for site in sites}]
    rules = ("bottom=0.5", "top=0.5", "middle=1", *(("structure-bottom=0.5",) if screened else ()))
    strengths = ((1.0, 0.0), (2.0, 0.0), (1.0, 0.5))
    arms = [
        Arm(
            f"identity at {kind}:{rule}, scale {scale:g}" + (", second half of the steps" if start else ""),
            EnhanceConfig(sites=f"{kind}:{rule}", scale=scale, start=start),
        )
        for (scale, start), kind, rule in itertools.product(strengths, kinds, rules)
    ]
    presets = ("stg-r", "slg", "seg", *(("apg", "cfg-zero", "interval") if guidance else ()))
    named = [Arm(name, EnhanceConfig.preset(name)) for name in presets]
    first, rest = arms[: 2 * len(kinds)], arms[2 * len(kinds) :]
    return [*first, *named, *rest]
