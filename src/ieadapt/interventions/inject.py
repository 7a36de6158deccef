"""Inject: the target looks where the source looks, and sees its own values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ieadapt.attention import AttentionCall, Guidance
from ieadapt.errors import UsageError
from ieadapt.functional import Scope, inject_output


@dataclass(frozen=True)
class Inject:
    """Give the target rows the source rows' attention map: output = softmax(Q_source K_source) V_target.

    Nothing is stored: source and target run in one batch, and `intercept(..., streams=("source", "target"))` says
    which prompt is which. Several targets may follow one source. A target row takes the map of the source row of the
    same guidance branch; `intercept` hands out the conditional rows unless its `guidance` says otherwise.

    Attributes:
        scope: on joint attention, `video` takes over the source's video-to-video block only and keeps the target's
            own mass on video and text; `all` takes over the whole map (source and target need as many text tokens).

    Raises:
        UsageError: the batch has no source row, or source and target differ in their number of tokens.

    Source: Free-Prompt-Editing (arXiv 2403.03431) for the idea of replacing self-attention maps; which layers, and its
    use on video, are a reconstruction.

    Example:
        >>> Inject(scope="all")
        Inject(scope='all')
    """

    scope: Scope = "video"

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """The output with the target rows replaced, or None if the call holds no target row."""
        if "source" not in {stream for each in (*call.earlier, call) for stream in each.rows.stream}:
            raise UsageError(
                "injection has no source",
                got=f"streams {call.rows.stream}",
                where=call.site.name,
                remedy='run source and target in one batch and pass streams=("source", "target") to intercept',
            )
        targets = call.rows.denoiser_rows(stream=("target",))
        if not targets:
            return None
        if call.attention.is_whole(self.scope) and not call.earlier:
            return _all_at_once(call, targets)
        whole = call if call.known_output is None else call.with_output(call.output)
        parts = []
        for index in targets:
            own, source = whole.restricted([index]), _source_of(call, call.rows.guidance[index])
            output = inject_output(own.attention, own.known_output, source=source.attention, scope=self.scope)
            parts.append((own, output))
        return whole.replaced(parts)


def _all_at_once(call: AttentionCall, targets: Sequence[int]) -> Tensor:
    """One attention in which each target row has the queries, keys and mask of its source row."""
    sources = [source_row(call, call.rows.guidance[row]) if row in targets else row for row in range(len(call.rows))]
    parts = [call.restricted([row]).attention for row in sources]
    query, key = (torch.cat([getattr(part, name) for part in parts]) for name in ("query", "key"))
    mask = call.mask
    if mask is not None and mask.shape[0] > 1:
        mask = torch.cat([part.mask for part in parts if part.mask is not None])
    output = replace(call.attention, query=query, key=key, mask=mask).output()
    if call.known_output is None:
        return output
    return call.replaced([(call.restricted([row]), output[call.rows.index([row])]) for row in targets])


def source_row(call: AttentionCall, branch: Guidance) -> int:
    """The denoiser row of the source of this branch.

    Raises:
        UsageError: there is none.
    """
    sources = call.rows.denoiser_rows((branch,), ("source",))
    if not sources:
        raise UsageError(f"no source row of the {branch} branch", got=call.rows, where=call.site.name)
    return sources[0]


def _source_of(call: AttentionCall, branch: Guidance) -> AttentionCall:
    """The source row of this branch, in the call itself or in one that the site made before it for another row."""
    holding = (each for each in call.earlier if each.rows.denoiser_rows((branch,), ("source",)))
    each = next(holding, call)
    return each.restricted([source_row(each, branch)])
