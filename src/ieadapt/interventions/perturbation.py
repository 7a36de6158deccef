"""What every replacement of an attention map shares: which part of a joint map it replaces, and how it is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace

from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.attention.layouts import TokenLayout
from ieadapt.errors import UsageError
from ieadapt.functional import Scope, inject_output


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
        values = {each: getattr(self, each.name) for each in fields(self) if not each.kw_only}
        amounts = [f"{value:g}" for each, value in values.items() if value != each.default]
        return f"{type(self).__name__}({', '.join([*amounts, f'scope={self.scope!r}'])})"


class QueryPerturbation(Perturbation):
    """A map replaced by that of changed video queries: they ask something else of the same keys. Text queries stay."""

    @abstractmethod
    def changed(self, query: Tensor, layout: TokenLayout, call: AttentionCall) -> Tensor:
        """What stands in for the video queries, (row, head, frame row column, dim)."""

    def __call__(self, call: AttentionCall) -> Tensor:
        """The attention of the changed queries, within the scope.

        Raises:
            UsageError: a model whose token layout is not known.
        """
        if call.layout is None:
            raise UsageError(
                "changing queries needs to know which token lies where",
                where=call.site.name,
                remedy="add the model's family to ieadapt/attention/families.py",
            )
        if not call.layout.frames:  # a text encoder's own attention
            return call.output
        query, video = call.query.clone(), call.layout.video.slice
        query[:, :, video] = self.changed(query[:, :, video], call.layout, call)
        source = replace(call.attention, query=query)
        return inject_output(call.attention, call.known_output, source=source, scope=self.scope)
