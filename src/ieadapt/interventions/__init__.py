"""Interventions: what happens at an attention site. Each is one page; each looks (None) or changes (a tensor)."""

from ieadapt.interventions.blur_queries import BlurQueries
from ieadapt.interventions.identity import Identity
from ieadapt.interventions.inject import Inject
from ieadapt.interventions.mix import Mix
from ieadapt.interventions.perturbation import Perturbation
from ieadapt.interventions.record import Record
from ieadapt.interventions.temperature import Temperature
from ieadapt.interventions.uniform import Uniform

__all__ = ["BlurQueries", "Identity", "Inject", "Mix", "Perturbation", "Record", "Temperature", "Uniform"]
