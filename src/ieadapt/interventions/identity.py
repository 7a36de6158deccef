"""Identity: every token attends to itself alone, so the output is the value. The map of least entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.errors import UsageError
from ieadapt.functional import identity_output
from ieadapt.interventions.perturbation import Perturbation


@dataclass(frozen=True, repr=False)
class Identity(Perturbation):
    """Replace the attention map A by (1 - weight) A + weight I: in full, output = V, EP 0 with scope `all`.

    Attributes:
        weight: 0 leaves the map, 1 makes it the identity.

    Raises:
        UsageError: weight outside 0..1, or on cross-attention, where queries and keys are different tokens and no
            identity exists.

    Source: arXiv 2504.12027 (the I perturbation; AI-written summary), PAG (arXiv 2403.17377) for the same map, SoftPAG
    (arXiv 2506.10978, equation 7) for the weight.

    Example:
        >>> Identity(), Identity(0.5)
        (Identity(scope='video'), Identity(0.5, scope='video'))
    """

    weight: int | float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise UsageError("the weight of the identity is out of range", expected="0..1", got=self.weight)

    def __call__(self, call: AttentionCall) -> Tensor:
        """The value of each token as its output, within the scope and by the weight."""
        if call.site.kind == "cross":
            raise UsageError(
                "cross-attention has no identity map: its queries are video tokens and its keys are text",
                where=call.site.name,
                remedy="use uniform, mix or temperature there, or choose spatial, temporal or joint sites",
            )
        if self.weight == 1.0:
            return identity_output(call.attention, call.known_output, scope=self.scope)
        identity = identity_output(call.attention, call.output, scope=self.scope)
        return torch.lerp(call.output, identity, self.weight)
