"""The seam over every diffusers denoiser: sites, token layouts, attention calls and `intercept`."""

from ieadapt.attention.blocks import SkippedBlocks, block_around
from ieadapt.attention.calls import AttentionCall, Intervention
from ieadapt.attention.denoiser_calls import DenoiserCall, DenoiserWrapper
from ieadapt.attention.discovery import active_sites, attention_modules, denoisers_of, find_sites
from ieadapt.attention.families import FAMILIES, Family, family_of
from ieadapt.attention.intercept import intercept, wrap_denoiser
from ieadapt.attention.layouts import LatentGrid, TokenLayout
from ieadapt.attention.prefix import Prefix
from ieadapt.attention.projections import after_projection, without_projection
from ieadapt.attention.rows import Guidance, GuidanceChoice, RowMap, StepWindow, Stream
from ieadapt.attention.sites import KINDS, AttentionSite, Kind, Selection, select_sites
from ieadapt.attention.timing import Clock

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
    "intercept",
    "select_sites",
    "without_projection",
    "wrap_denoiser",
]
