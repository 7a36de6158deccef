"""Skip: the attention adds nothing, so what a token knew before is all that it knows after."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.functional import skip_output
from ieadapt.interventions.perturbation import Perturbation


@dataclass(frozen=True, repr=False)
class Skip(Perturbation):
    """Leave the attention's output out: zero, so that only the residual path (and the projection's bias) goes on.

    This is the attention skip of diffusers' layer-skip guidance. The attention skip of spatiotemporal skip guidance
    (STG-A) is something else by its source: the identity map, on joint attention with the softmax over own token and
    text, that is `Identity(scope="video-renormalised")`.

    Source: reconstruction.

    Example:
        >>> Skip()
        Skip(scope='video')
    """

    def __call__(self, call: AttentionCall) -> Tensor:
        """Zero in place of what the video tokens gave, within the scope."""
        return skip_output(call.attention, call.known_output, scope=self.scope)
