"""Methods: measuring a model, its attention maps, choosing layers, enhancing a video, studying what each layer does."""

from ieadapt.methods.clip_check import check_clip
from ieadapt.methods.edit_config import EditConfig
from ieadapt.methods.editing import EditResult, edit
from ieadapt.methods.enhancement import EnhanceConfig, enhance, enhancement
from ieadapt.methods.generation import GenerationConfig, generate
from ieadapt.methods.inversion import Inversion, invert
from ieadapt.methods.inversion_key import inversion_key
from ieadapt.methods.layer_choice import SiteChoice
from ieadapt.methods.maps import AttentionMaps, attention_maps
from ieadapt.methods.measurement import measure
from ieadapt.methods.profile import EntropyProfile
from ieadapt.methods.study_config import StudyConfig

__all__ = [
    "AttentionMaps",
    "EditConfig",
    "EditResult",
    "EnhanceConfig",
    "EntropyProfile",
    "GenerationConfig",
    "Inversion",
    "SiteChoice",
    "StudyConfig",
    "attention_maps",
    "check_clip",
    "edit",
    "enhance",
    "enhancement",
    "generate",
    "inversion_key",
    "invert",
    "measure",
]
