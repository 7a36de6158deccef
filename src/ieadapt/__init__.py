"""ieadapt: see what every attention layer of a video diffusion model does, and use what is seen."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

# Where each public name lives; loaded on first use, so that `ieadapt --help` stays fast.
_PUBLIC = {
    "load": "ieadapt.models",
    "AttentionSite": "ieadapt.attention",
    "find_sites": "ieadapt.attention",
    "select_sites": "ieadapt.attention",
    "intercept": "ieadapt.attention",
    "Record": "ieadapt.interventions",
    "Identity": "ieadapt.interventions",
    "Uniform": "ieadapt.interventions",
    "Mix": "ieadapt.interventions",
    "Temperature": "ieadapt.interventions",
    "Inject": "ieadapt.interventions",
    "EntropyProfile": "ieadapt.methods",
    "GenerationConfig": "ieadapt.methods",
    "EnhanceConfig": "ieadapt.methods",
    "generate": "ieadapt.methods",
    "measure": "ieadapt.methods",
    "attention_maps": "ieadapt.methods",
    "enhance": "ieadapt.methods",
    "enhancement": "ieadapt.methods",
    "EditConfig": "ieadapt.methods",
    "EditResult": "ieadapt.methods",
    "Inversion": "ieadapt.methods",
    "edit": "ieadapt.methods",
    "invert": "ieadapt.methods",
    "StudyConfig": "ieadapt.methods",
    "study": "ieadapt.runs",
    "Frames": "ieadapt.runs",
    "SourceConfig": "ieadapt.runs",
    "read_source": "ieadapt.runs",
    "IEAdaptError": "ieadapt.errors",
    "UsageError": "ieadapt.errors",
    "FailureError": "ieadapt.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
