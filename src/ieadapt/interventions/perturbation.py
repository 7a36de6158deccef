"""What every replacement of an attention map shares: which rows it touches and which part of a joint map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from ieadapt.attention import ALL_GUIDANCE, AttentionCall, Guidance
from ieadapt.functional import Scope


@dataclass(frozen=True)
class Perturbation(ABC):
    """An attention map replaced in closed form, on the rows of some guidance branches.

    Attributes:
        scope: what is replaced where text and video tokens share a sequence. `video`: the video-to-video block of
            video rows, each row keeping its mass on video and on text; `video-renormalised`: joint PAG's form
            (identity only); `all`: the whole map. Sites without text tokens do not distinguish them.
        guidance: the branches whose rows are touched: `uncond`, `cond`, `weak`, `none`.
    """

    scope: Scope = field(default="video", kw_only=True)
    guidance: tuple[Guidance, ...] = field(default=ALL_GUIDANCE, kw_only=True)

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """The call's output with the chosen rows replaced, or None if no row is of a chosen branch."""
        rows = call.rows.denoiser_rows(self.guidance)
        if not rows:
            return None
        if len(rows) == len(call.rows.guidance):
            return self.replacement(call)
        part = call.restricted(rows)
        output = call.output.clone()
        output[part.source_rows] = self.replacement(part)
        return output

    @abstractmethod
    def replacement(self, call: AttentionCall) -> Tensor:
        """The replaced output for every row of the call."""
