"""Mix: part of the way from the model's own map to the uniform one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.errors import UsageError
from ieadapt.functional import mix_output
from ieadapt.interventions.perturbation import Perturbation


@dataclass(frozen=True, repr=False)
class Mix(Perturbation):
    """Replace the map A by (1 - weight) A + weight U; entropy never falls (it is concave).

    Attributes:
        weight: 0 leaves the map, 1 makes it uniform.

    Raises:
        UsageError: weight outside 0..1.

    Source: reconstruction (the paper names I and U only).

    Example:
        >>> Mix(0.5)
        Mix(0.5, scope='video')
    """

    weight: int | float

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise UsageError("the weight of a mix is out of range", expected="0..1", got=self.weight)

    def __call__(self, call: AttentionCall) -> Tensor:
        """The mixture's output, within the scope."""
        return mix_output(call.attention, call.output, scope=self.scope, weight=self.weight)
