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
    "EntropyProfile": "ieadapt.tasks.measure.profile",
    "GenerationConfig": "ieadapt.tasks.generate",
    "EnhanceConfig": "ieadapt.tasks.enhance.config",
    "generate": "ieadapt.tasks.generate",
    "measure": "ieadapt.tasks.measure.method",
    "attention_maps": "ieadapt.tasks.maps.method",
    "enhance": "ieadapt.tasks.enhance.method",
    "enhancement": "ieadapt.tasks.enhance.method",
    "EditConfig": "ieadapt.tasks.edit.config",
    "EditResult": "ieadapt.tasks.edit.method",
    "Inversion": "ieadapt.tasks.edit.inversion",
    "edit": "ieadapt.tasks.edit.method",
    "invert": "ieadapt.tasks.edit.inversion",
    "StudyConfig": "ieadapt.tasks.study.config",
    "study": "ieadapt.tasks.study.run",
    "ScreenConfig": "ieadapt.tasks.screen.config",
    "screen": "ieadapt.tasks.screen.run",
    "TuneConfig": "ieadapt.tasks.tune.config",
    "tune": "ieadapt.tasks.tune.run",
    "Frames": "ieadapt.runs.sources",
    "SourceConfig": "ieadapt.runs.sources",
    "read_source": "ieadapt.runs.sources",
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
