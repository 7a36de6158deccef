"""Identity: every token attends to itself alone, so the output is the value. The map of least entropy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.errors import UsageError
from ieadapt.functional import identity_output
from ieadapt.interventions.perturbation import Perturbation


@dataclass(frozen=True, repr=False)
class Identity(Perturbation):
    """Replace the attention map by the identity: output = V, EP 0 with scope `all`.

    Raises:
        UsageError: on cross-attention, where queries and keys are different tokens and no identity exists.

    Source: arXiv 2504.12027 (the I perturbation; AI-written summary), PAG (arXiv 2403.17377) for the same map.

    Example:
        >>> Identity()
        Identity(scope='video')
    """

    def __call__(self, call: AttentionCall) -> Tensor:
        """The value of each token as its output, within the scope."""
        if call.site.kind == "cross":
            raise UsageError(
                "cross-attention has no identity map: its queries are video tokens and its keys are text",
                where=call.site.name,
                remedy="use uniform, mix or temperature there, or choose spatial, temporal or joint sites",
            )
        return identity_output(call.attention, call.known_output, scope=self.scope)
