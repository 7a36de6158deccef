"""Methods of generation: plain settings, enhancements with their controls, and the literature's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.enhance.config import AUTO, EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.enhance.presets import PRESETS
from ieadapt.tasks.generate import generate
from ieadapt.tasks.measure.profile import EntropyProfile

PLAIN = "plain"
DEFAULT = "default"


@dataclass(frozen=True)
class Variant:
    """One way of generating.

    Attributes:
        group: what it stands for: `plain`, `entropy` (sites chosen by entropy), `control`, or a baseline's name.
        enhance: the enhancement, None for plain.
        guidance_scale: classifier-free guidance scale; None is that of plain.
        steps: factor on the number of denoising steps.
        controls: rows that belong beside this one.
    """

    group: str
    enhance: EnhanceConfig | None = None
    guidance_scale: float | None = None
    steps: float = 1.0
    controls: tuple[str, ...] = ()

    @property
    def settings(self) -> str:
        """In words, as far as they differ from plain ones or from the default enhancement."""
        return "" if self.enhance is None else repr(self.enhance)

    @property
    def needs_profile(self) -> bool:
        """Whether its sites are chosen by a profile."""
        return self.enhance is not None and self.enhance.needs_profile

    def generation(self, base: GenerationConfig) -> GenerationConfig:
        """The settings of a run, from those of plain."""
        scale = base.guidance_scale if self.guidance_scale is None else self.guidance_scale
        return dataclasses.replace(
            base, num_inference_steps=round(base.num_inference_steps * self.steps), guidance_scale=scale
        )

    def videos(
        self,
        pipe: DiffusionPipeline,
        prompts: Sequence[str],
        seeds: Sequence[int],
        base: GenerationConfig,
        profile: EntropyProfile | None,
    ) -> Float[Tensor, "video frame channel height width"]:
        """Its videos, one per prompt and seed."""
        generation = self.generation(base)
        if self.enhance is None:
            return generate(pipe, prompts, generation, seeds)
        with enhancement(pipe, self.enhance, profile):
            return generate(pipe, prompts, generation, seeds)


def baseline(name: str, **changes: Any) -> dict[str, Variant]:
    """A published method, with some of its settings changed."""
    changed = ", ".join(f"{key} {value}" for key, value in changes.items())
    return {f"{name}, {changed}" if changed else name: Variant(name, EnhanceConfig.preset(name, **changes))}


def controls_of(config: EnhanceConfig, sites: str) -> dict[str, EnhanceConfig]:
    """The same with as many sites at random, of all and within each resolution, two draws each.

    Args:
        config: the enhancement.
        sites: its choice of sites, `KIND:RULE=AMOUNT`.

    Example:
        >>> list(controls_of(EnhanceConfig(), "temporal:top=0.5"))
        ['random-0', 'level-random-0', 'random-1', 'level-random-1']
    """
    kind, _, rule = sites.partition(":")
    amount = rule.partition("=")[2]
    return {
        f"{drawn}-{seed}": dataclasses.replace(config, sites=f"{kind}:{drawn}={amount}", seed=seed)
        for seed in (0, 1)
        for drawn in ("random", "level-random")
    }


def _compared() -> dict[str, Variant]:
    own, controls = EnhanceConfig(), controls_of(EnhanceConfig(), AUTO)
    return {
        PLAIN: Variant("plain"),
        **{f"plain-guidance-{scale:g}": Variant("plain", guidance_scale=scale) for scale in (1.5, 2.0, 4.0, 6.0)},
        **{f"plain-steps-{factor:g}": Variant("plain", steps=factor) for factor in (1.25, 1.5)},
        DEFAULT: Variant("entropy", own, controls=tuple(controls)),
        **{name: Variant("control", config) for name, config in controls.items()},
        **{name: variant for preset in PRESETS for name, variant in baseline(preset).items()},
    }


VARIANTS: Mapping[str, Variant] = _compared()
"""What the benchmark compares; `default` is `EnhanceConfig()` as it is."""
