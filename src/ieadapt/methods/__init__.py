"""Methods: measuring a model, choosing layers, enhancing a video."""

from ieadapt.methods.enhancement import EnhanceConfig, enhance, enhancement
from ieadapt.methods.generation import GenerationConfig, generate
from ieadapt.methods.layer_choice import SiteChoice
from ieadapt.methods.measurement import measure
from ieadapt.methods.profile import EntropyProfile

__all__ = [
    "EnhanceConfig",
    "EntropyProfile",
    "GenerationConfig",
    "SiteChoice",
    "enhance",
    "enhancement",
    "generate",
    "measure",
]
