"""The seam over every diffusers denoiser: sites, token layouts, attention calls and `intercept`."""

from typing import TYPE_CHECKING

from ieadapt.lazy import on_first_use

if TYPE_CHECKING:
    from ieadapt.attention.blocks import SkippedBlocks, block_around
    from ieadapt.attention.calls import AttentionCall, Intervention
    from ieadapt.attention.denoiser_calls import Clock, DenoiserCall, DenoiserWrapper, Prefix
    from ieadapt.attention.discovery import (
        active_sites,
        after_projection,
        attention_modules,
        denoisers_of,
        find_sites,
        first_denoiser,
        without_projection,
    )
    from ieadapt.attention.families import FAMILIES, Family, LatentGrid, family_of
    from ieadapt.attention.interception import intercept, wrap_denoiser
    from ieadapt.attention.layouts import TokenLayout
    from ieadapt.attention.run_state import RowMap
    from ieadapt.attention.sites import (
        KINDS,
        AttentionSite,
        Guidance,
        GuidanceChoice,
        Kind,
        Selection,
        SiteList,
        StepWindow,
        Stream,
        select_sites,
    )

__all__ = [
    "FAMILIES",
    "KINDS",
    "AttentionCall",
    "AttentionSite",
    "Clock",
    "DenoiserCall",
    "DenoiserWrapper",
    "Family",
    "Guidance",
    "GuidanceChoice",
    "Intervention",
    "Kind",
    "LatentGrid",
    "Prefix",
    "RowMap",
    "Selection",
    "SiteList",
    "SkippedBlocks",
    "StepWindow",
    "Stream",
    "TokenLayout",
    "active_sites",
    "after_projection",
    "attention_modules",
    "block_around",
    "denoisers_of",
    "family_of",
    "find_sites",
    "first_denoiser",
    "intercept",
    "select_sites",
    "without_projection",
    "wrap_denoiser",
]

__getattr__ = on_first_use(__name__)
