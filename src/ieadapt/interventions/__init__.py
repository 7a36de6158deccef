"""Interventions: what happens at an attention site. Each is one page; each looks (None) or changes (a tensor)."""

from ieadapt.interventions.blur_queries import BlurQueries
from ieadapt.interventions.cross_frame import CrossFrameScale
from ieadapt.interventions.identity import Identity
from ieadapt.interventions.inject import Inject
from ieadapt.interventions.mix import Mix
from ieadapt.interventions.named import AMOUNTS, PERTURBATIONS, parse_perturbation
from ieadapt.interventions.perturbation import Perturbation
from ieadapt.interventions.record import Record
from ieadapt.interventions.skip import Skip
from ieadapt.interventions.temperature import Temperature
from ieadapt.interventions.uniform import Uniform
from ieadapt.interventions.word_maps import WordControl, WordMaps

__all__ = [
    "AMOUNTS",
    "PERTURBATIONS",
    "BlurQueries",
    "CrossFrameScale",
    "Identity",
    "Inject",
    "Mix",
    "Perturbation",
    "Record",
    "Skip",
    "Temperature",
    "Uniform",
    "WordControl",
    "WordMaps",
    "parse_perturbation",
]
