"""What every replacement of an attention map shares: which rows and heads it touches, and which part of a joint map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from ieadapt.attention import ALL_GUIDANCE, AttentionCall, Guidance
from ieadapt.errors import UsageError
from ieadapt.functional import Scope


@dataclass(frozen=True)
class Perturbation(ABC):
    """An attention map replaced in closed form, on the rows of some guidance branches.

    Attributes:
        scope: what is replaced where text and video tokens share a sequence. `video`: the video-to-video block of
            video rows, each row keeping its mass on video and on text; `video-renormalised`: joint PAG's form
            (identity only); `all`: the whole map. Sites without text tokens do not distinguish them.
        guidance: the branches whose rows are touched: `uncond`, `cond`, `weak`, `none`.
        heads: the heads that are touched, counted from 0; None for all.

    Raises:
        UsageError: a head that the site does not have, when the perturbation meets it.
    """

    scope: Scope = field(default="video", kw_only=True)
    guidance: tuple[Guidance, ...] = field(default=ALL_GUIDANCE, kw_only=True)
    heads: tuple[int, ...] | None = field(default=None, kw_only=True)

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """The call's output with the chosen rows replaced, or None if no row is of a chosen branch."""
        rows = call.rows.denoiser_rows(self.guidance)
        if not rows:
            return None
        if len(rows) == len(call.rows.guidance):
            return self._on_heads(call)
        output = call.output.clone()
        part = call.restricted(rows)
        output[part.source_rows] = self._on_heads(part)
        return output

    def _on_heads(self, call: AttentionCall) -> Tensor:
        """The replacement, on the chosen heads only; the others keep the call's output."""
        if self.heads is None:
            return self.replacement(call)
        missing = [head for head in self.heads if not 0 <= head < call.query.shape[1]]
        if missing:
            raise UsageError(
                "the site has no such head", expected=f"0..{call.query.shape[1] - 1}", got=missing, where=call.site.name
            )
        output = call.output.clone()
        output[:, list(self.heads)] = self.replacement(call)[:, list(self.heads)]
        return output

    def _told(self, *amounts: object) -> str:
        """The perturbation as it is written in Python, without what has its default."""
        heads = [] if self.heads is None else [f"heads={self.heads}"]
        return f"{type(self).__name__}({', '.join([*map(str, amounts), f'scope={self.scope!r}', *heads])})"

    @abstractmethod
    def replacement(self, call: AttentionCall) -> Tensor:
        """The replaced output for every row of the call."""
