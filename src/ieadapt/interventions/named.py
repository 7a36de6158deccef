"""Perturbations by name: how a config, a flag or a study's cell writes one."""

from __future__ import annotations

from collections.abc import Mapping

from ieadapt.functional import Scope
from ieadapt.interventions.blur_queries import BlurQueries
from ieadapt.interventions.identity import Identity
from ieadapt.interventions.mix import Mix
from ieadapt.interventions.perturbation import Perturbation
from ieadapt.interventions.shuffle import Shuffle
from ieadapt.interventions.skip import Skip
from ieadapt.interventions.temperature import Temperature
from ieadapt.interventions.uniform import Uniform
from ieadapt.notation import PERTURBATION_FORMS, parse_term

PERTURBATIONS: Mapping[str, type[Perturbation]] = {
    "identity": Identity,
    "uniform": Uniform,
    "mix": Mix,
    "temperature": Temperature,
    "blur": BlurQueries,
    "shuffle": Shuffle,
    "skip": Skip,
}


def parse_perturbation(text: str, *, scope: Scope = "video") -> Perturbation:
    """Read one of `PERTURBATION_FORMS`, such as `identity`, `mix:0.5` or `blur:inf`.

    Args:
        text: the perturbation, with its amount after a colon.
        scope: which part of a joint map it replaces.

    Raises:
        UsageError: unknown name, or an amount missing or out of range.

    Example:
        >>> parse_perturbation("mix:0.5")
        Mix(0.5, scope='video')
    """
    name, amounts = parse_term(text, PERTURBATION_FORMS, "perturbation")
    return PERTURBATIONS[name](*amounts, scope=scope)
