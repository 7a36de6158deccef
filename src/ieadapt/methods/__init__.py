"""Methods: measuring a model, its attention maps, choosing layers, enhancing a video, studying what each layer does."""

from ieadapt.methods.editing.clip_check import check_clip
from ieadapt.methods.editing.config import EditConfig
from ieadapt.methods.editing.edit import EditResult, edit
from ieadapt.methods.editing.inversion import Inversion, invert
from ieadapt.methods.editing.inversion_key import inversion_key
from ieadapt.methods.editing.presets import EDIT_PRESETS, edit_preset
from ieadapt.methods.enhancing.config import EnhanceConfig
from ieadapt.methods.enhancing.enhancement import enhance, enhancement
from ieadapt.methods.enhancing.presets import PRESETS, matched_steps
from ieadapt.methods.enhancing.record import Enhancement
from ieadapt.methods.generation import GenerationConfig, generate
from ieadapt.methods.layer_choice import HeadChoice, SiteChoice
from ieadapt.methods.maps.attention_maps import AttentionMaps, attention_maps
from ieadapt.methods.measurement import measure
from ieadapt.methods.profile import EntropyProfile
from ieadapt.methods.study.config import StudyConfig
from ieadapt.models.video_latents import fitting_size

__all__ = [
    "EDIT_PRESETS",
    "PRESETS",
    "AttentionMaps",
    "EditConfig",
    "EditResult",
    "EnhanceConfig",
    "Enhancement",
    "EntropyProfile",
    "GenerationConfig",
    "HeadChoice",
    "Inversion",
    "SiteChoice",
    "StudyConfig",
    "attention_maps",
    "check_clip",
    "edit",
    "edit_preset",
    "enhance",
    "enhancement",
    "fitting_size",
    "generate",
    "inversion_key",
    "invert",
    "matched_steps",
    "measure",
]
