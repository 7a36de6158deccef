"""Interventions: what happens at an attention site. Each is one page; each looks (None) or changes (a tensor)."""

from ieadapt.interventions.average_queries import AverageQueries
from ieadapt.interventions.blur_queries import BlurQueries
from ieadapt.interventions.cross_frame import CrossFrameScale
from ieadapt.interventions.identity import Identity
from ieadapt.interventions.inject import Inject
from ieadapt.interventions.mix import Mix
from ieadapt.interventions.named import PERTURBATION_FORMS, PERTURBATIONS, parse_perturbation
from ieadapt.interventions.perturbation import Perturbation
from ieadapt.interventions.prompt_to_prompt import PromptToPrompt, TokenMapping
from ieadapt.interventions.record import Record
from ieadapt.interventions.shuffle import Shuffle
from ieadapt.interventions.skip import Skip
from ieadapt.interventions.temperature import Temperature
from ieadapt.interventions.uniform import Uniform

__all__ = [
    "PERTURBATIONS",
    "PERTURBATION_FORMS",
    "AverageQueries",
    "BlurQueries",
    "CrossFrameScale",
    "Identity",
    "Inject",
    "Mix",
    "Perturbation",
    "PromptToPrompt",
    "Record",
    "Shuffle",
    "Skip",
    "Temperature",
    "TokenMapping",
    "Uniform",
    "parse_perturbation",
]
