"""Uniform: every token attends to all tokens alike, so the output is the mean value. The map of most entropy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.functional import uniform_output
from ieadapt.interventions.perturbation import Perturbation


@dataclass(frozen=True, repr=False)
class Uniform(Perturbation):
    """Replace the attention map by the uniform one: output = mean of V over the keys not masked, EP 100.

    Source: arXiv 2504.12027 (the U perturbation; AI-written summary).

    Example:
        >>> Uniform(scope="all")
        Uniform(scope='all')
    """

    def __call__(self, call: AttentionCall) -> Tensor:
        """The mean value as every token's output, within the scope."""
        return uniform_output(call.attention, call.known_output, scope=self.scope)
