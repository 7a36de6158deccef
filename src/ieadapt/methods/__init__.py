"""Methods: measuring a model, its attention maps, choosing layers, enhancing a video, studying what each layer does."""

from ieadapt.methods.enhancement import EnhanceConfig, enhance, enhancement
from ieadapt.methods.generation import GenerationConfig, generate
from ieadapt.methods.layer_choice import SiteChoice
from ieadapt.methods.maps import AttentionMaps, attention_maps
from ieadapt.methods.measurement import measure
from ieadapt.methods.profile import EntropyProfile
from ieadapt.methods.study_config import StudyConfig

__all__ = [
    "AttentionMaps",
    "EnhanceConfig",
    "EntropyProfile",
    "GenerationConfig",
    "SiteChoice",
    "StudyConfig",
    "attention_maps",
    "enhance",
    "enhancement",
    "generate",
    "measure",
]
