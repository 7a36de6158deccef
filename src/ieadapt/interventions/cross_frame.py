"""Cross-frame scaling: attention counts for more where frames look at each other. Enhance-A-Video."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from torch import Tensor

from ieadapt.attention import AttentionCall, AttentionSite
from ieadapt.errors import UsageError
from ieadapt.functional import cross_frame_intensity


class _Factors(NamedTuple):
    """Of one call of a site: a factor per row, and for which rows of the site's batch and which tokens they are."""

    values: Tensor
    rows: slice | Tensor
    tokens: slice


class CrossFrameScale:
    """Multiply the attention's result for video tokens by max(1, (frames + weight) * cross-frame intensity).

    It looks at the attention call, and changes what the site's output projection returns (`change`); a site without one
    is changed at once.

    Args:
        weight: the temperature of the method, positive; a uniform map gets 1 + weight / frames.
        strength: how much of the change is made in an attention call's step, 0..1: 1 + strength * (factor - 1).
        unprojected: names of the sites without an output projection.

    Raises:
        UsageError: a site where no frames attend to one another, or a model whose token layout is not known.

    Source: Enhance-A-Video (arXiv 2502.07508), checked against its code: same factor, same layer, video tokens only.
    There one factor is the mean over the batch; here every row has its own, so that a video does not depend on its
    batch. The source has it for joint attention; temporal attention is the case that its formula speaks of.
    """

    def __init__(
        self,
        weight: int | float,
        *,
        strength: Callable[[AttentionCall], int | float] = lambda call: 1.0,
        unprojected: Collection[str] = (),
    ) -> None:
        self.weight, self.strength = weight, strength
        self._unprojected = frozenset(unprojected)
        self._factors: dict[AttentionSite, list[_Factors]] = {}

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """Keep the call's factors, or scale its output where the site has no output projection."""
        factors = self._factors_of(call)
        if call.site.name in self._unprojected:
            output = call.output.clone()
            output[:, :, factors.tokens] *= factors.values.to(output)[:, None, None, None]
            return output
        self._factors[call.site] = [*(self._factors.get(call.site, []) if call.earlier else []), factors]
        return None

    def _factors_of(self, call: AttentionCall) -> _Factors:
        layout = call.layout
        if call.site.kind not in ("temporal", "joint") or layout is None:
            raise UsageError(
                "cross-frame scaling needs attention between frames",
                expected="temporal or joint attention of a known family",
                got=call.site.kind,
                where=call.site.name,
            )
        grid = (layout.frames, layout.height * layout.width)
        query, key = (tokens[:, :, layout.video.slice].unflatten(2, grid) for tokens in (call.query, call.key))
        each = cross_frame_intensity(query, key, scale=call.scale)
        per_video = each.unflatten(0, (-1, call.rows.repeats)).mean(1)
        factor = ((layout.frames + self.weight) * per_video).clamp(min=1)
        values = (1 + self.strength(call) * (factor - 1)).repeat_interleave(call.rows.repeats)
        rows = call.rows.index(call.rows.batch or range(len(call.rows)), values.device)
        return _Factors(values, rows, layout.video.slice)

    def change(self, site: AttentionSite, projected: Tensor) -> Tensor:
        """Scale what the output projection gave for the video tokens of the latest call."""
        scaled = projected.clone()
        for values, rows, tokens in self._factors[site]:
            # A block of joint attention may project its video tokens alone.
            within = tokens if projected.shape[1] >= tokens.stop else slice(None)
            scaled[rows, within] *= values.to(projected)[:, None, None]
        return scaled

    def __repr__(self) -> str:
        return f"CrossFrameScale({self.weight:g})"
