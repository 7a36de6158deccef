"""What every replacement of an attention map shares: which part of a joint map it replaces, and how it is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields

from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.functional import Scope


@dataclass(frozen=True)
class Perturbation(ABC):
    """An attention map replaced in closed form, on the rows and heads that `intercept` hands out.

    Attributes:
        scope: what is replaced where text and video tokens share a sequence. `video`: the video-to-video block of
            video rows, each row keeping its mass on video and on text; `video-renormalised`: joint PAG's form
            (identity only); `all`: the whole map. Sites without text tokens do not distinguish them.
    """

    scope: Scope = field(default="video", kw_only=True)

    @abstractmethod
    def __call__(self, call: AttentionCall) -> Tensor:
        """The replaced output of every row of the call."""

    def __repr__(self) -> str:
        amounts = [f"{getattr(self, each.name):g}" for each in fields(self) if not each.kw_only]
        return f"{type(self).__name__}({', '.join([*amounts, f'scope={self.scope!r}'])})"
