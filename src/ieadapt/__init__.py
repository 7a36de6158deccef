"""ieadapt: see what every attention layer of a video diffusion model does, and use what is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ieadapt.lazy import offered, on_first_use

if TYPE_CHECKING:
    from ieadapt.attention import AttentionSite, find_sites, intercept, select_sites
    from ieadapt.errors import FailureError, IEAdaptError, UsageError
    from ieadapt.interventions import Identity, Inject, Mix, Record, Temperature, Uniform
    from ieadapt.models import load
    from ieadapt.runs.settings import GenerationConfig, SourceConfig
    from ieadapt.runs.sources import Frames, read_source
    from ieadapt.tasks.edit.config import EditConfig
    from ieadapt.tasks.edit.inversion import Inversion, invert
    from ieadapt.tasks.edit.method import EditResult, edit
    from ieadapt.tasks.enhance.config import EnhanceConfig
    from ieadapt.tasks.enhance.method import enhance, enhancement
    from ieadapt.tasks.generate import generate
    from ieadapt.tasks.maps.method import attention_maps
    from ieadapt.tasks.measure.method import measure
    from ieadapt.tasks.measure.profile import EntropyProfile
    from ieadapt.tasks.screen.config import ScreenConfig
    from ieadapt.tasks.screen.run import screen
    from ieadapt.tasks.study.config import StudyConfig
    from ieadapt.tasks.study.run import study
    from ieadapt.tasks.tune.config import TuneConfig
    from ieadapt.tasks.tune.run import tune

__version__ = "0.1.0.dev0"

__getattr__ = on_first_use(__name__)
__all__ = ["__version__", *offered(__name__)]


def __dir__() -> list[str]:
    return sorted(__all__)
