"""Temperature: a sharper or softer map, from the same logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.errors import UsageError
from ieadapt.functional import temperature_output
from ieadapt.interventions.perturbation import Perturbation


@dataclass(frozen=True, repr=False)
class Temperature(Perturbation):
    """Divide the attention logits by a temperature: above 1 raises the map's entropy, below 1 lowers it.

    Attributes:
        temperature: positive; 1 leaves the map.

    Raises:
        UsageError: temperature not positive.

    Source: reconstruction (the paper names I and U only).

    Example:
        >>> Temperature(2)
        Temperature(2, scope='video')
    """

    temperature: int | float

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise UsageError("the temperature of a softmax must be positive", expected="> 0", got=self.temperature)

    def __call__(self, call: AttentionCall) -> Tensor:
        """The re-tempered map's output, within the scope."""
        return temperature_output(call.attention, call.known_output, scope=self.scope, temperature=self.temperature)
