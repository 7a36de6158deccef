"""Inject: the target looks where the source looks, and sees its own values."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ieadapt.attention import AttentionCall, Guidance
from ieadapt.errors import FailureError, UsageError
from ieadapt.functional import Scope, inject_output


@dataclass(frozen=True)
class Inject:
    """Give the target rows the source rows' attention map: output = softmax(Q_source K_source) V_target.

    Nothing is stored: source and target run in one batch, and `intercept(..., streams=("source", "target"))` says
    which prompt is which. Several targets may follow one source. A target row takes the map of the source row of the
    same guidance branch.

    Attributes:
        scope: on joint attention, `video` takes over the source's video-to-video block only and keeps the target's
            own mass on video and text; `all` takes over the whole map (source and target need as many text tokens).
        guidance: branches whose target rows are touched.

    Raises:
        UsageError: the batch has no source row, or none of the branch that is asked for.
        FailureError: source and target differ in their number of tokens.

    Source: Free-Prompt-Editing (arXiv 2403.03431) for the idea of replacing self-attention maps; which layers, and its
    use on video, are a reconstruction.

    Example:
        >>> Inject(guidance=("cond", "uncond"))
        Inject(scope='video')
    """

    scope: Scope = "video"
    guidance: tuple[Guidance, ...] = field(default=("cond", "none"))

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """The output with the target rows replaced, or None if the call holds no target row of a chosen branch."""
        if "source" not in {stream for each in (*call.earlier, call) for stream in each.rows.stream}:
            raise UsageError(
                "injection has no source",
                got=f"streams {call.rows.stream}",
                where=call.site.name,
                remedy='run source and target in one batch and pass streams=("source", "target") to intercept',
            )
        targets = call.rows.denoiser_rows(self.guidance, ("target",))
        if not targets:
            return None
        if call.is_whole(self.scope) and not call.earlier:
            sources = {row: _source_row(call, call.rows.guidance[row]) for row in targets}
            return call.with_maps_of([sources.get(row, row) for row in range(len(call.rows.guidance))])
        output = call.kept_output(targets, self.scope)
        whole = call.with_output(output)
        for index in targets:
            own = whole.restricted([index])
            taken = _source_of(call, call.rows.guidance[index])
            if self.scope == "all" and taken.query.shape != own.query.shape:
                raise FailureError(
                    "source and target differ in their number of tokens",
                    expected=tuple(taken.query.shape),
                    got=tuple(own.query.shape),
                    where=call.site.name,
                    remedy='use scope="video"',
                )
            arguments = own.for_replacement() | ({"mask": taken.mask} if self.scope == "all" else {})
            output[own.source_rows] = inject_output(
                source_query=taken.query,
                source_key=taken.key,
                source_video=taken.joint_video,
                **arguments,
                scope=self.scope,
            )
        return output

    def __repr__(self) -> str:
        return f"Inject(scope={self.scope!r})"


def _source_row(call: AttentionCall, branch: Guidance) -> int:
    """The denoiser row of the source of this branch."""
    found = call.rows.denoiser_rows((branch,), ("source",))
    if not found:
        raise UsageError(f"no source row of the {branch} branch", got=call.rows, where=call.site.name)
    return found[0]


def _source_of(call: AttentionCall, branch: Guidance) -> AttentionCall:
    """The source row of this branch, in the call itself or in one that the site made before it for another row."""
    holding = (each for each in call.earlier if each.rows.denoiser_rows((branch,), ("source",)))
    each = next(holding, call)
    return each.restricted([_source_row(each, branch)])
