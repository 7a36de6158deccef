"""Where an edit may take the source's maps: rules that follow from the model alone."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import DiffusionPipeline

from ieadapt.attention import AttentionSite, denoisers_of, family_of
from ieadapt.errors import UsageError

SELF_ATTENTION = ("spatial", "temporal", "joint")
"""Kinds of sites that injection chooses among unless sites are named."""


def coarse_sites(pipe: DiffusionPipeline, sites: Sequence[AttentionSite]) -> list[AttentionSite]:
    """Of some sites, the spatial ones below the finest resolution of a U-Net.

    Raises:
        UsageError: the denoiser has one resolution only.

    Source: Free-Prompt-Editing, arXiv 2403.03431: at most 32 x 32 tokens where the finest resolution has 64 x 64.
    """
    denoiser = next(iter(denoisers_of(pipe).values()))
    family = family_of(denoiser)
    if family.skips == "none":
        raise UsageError(
            "this model has one resolution, so no coarse sites",
            got=family.name,
            remedy="inject all, or a choice by entropy",
        )
    stages = family.stages(denoiser)
    finest = {name for name, module in denoiser.named_modules() if module in (stages[0], stages[-1])}
    return [
        site
        for site in sites
        if site.kind == "spatial" and not any(site.name.startswith(f"{name}.") for name in finest)
    ]
