"""The seam over every diffusers denoiser: sites, token layouts, attention calls and `intercept`."""

from ieadapt.attention.calls import AttentionCall, Intervention
from ieadapt.attention.denoiser_calls import DenoiserCall, DenoiserWrapper
from ieadapt.attention.discovery import denoisers_of, find_sites
from ieadapt.attention.families import FAMILIES, Family, family_of
from ieadapt.attention.intercept import intercept, wrap_denoiser
from ieadapt.attention.layouts import LatentGrid, TokenLayout
from ieadapt.attention.rows import ALL_GUIDANCE, Guidance, RowMap, Stream
from ieadapt.attention.sites import KINDS, AttentionSite, Kind, Selection, select_sites

__all__ = [
    "ALL_GUIDANCE",
    "FAMILIES",
    "KINDS",
    "AttentionCall",
    "AttentionSite",
    "DenoiserCall",
    "DenoiserWrapper",
    "Family",
    "Guidance",
    "Intervention",
    "Kind",
    "LatentGrid",
    "RowMap",
    "Selection",
    "Stream",
    "TokenLayout",
    "denoisers_of",
    "family_of",
    "find_sites",
    "intercept",
    "select_sites",
    "wrap_denoiser",
]
