"""Averaged queries: a token asks what it asked in the steps before. Exponential-moving-average guidance's weak map."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch import Tensor

from ieadapt.attention import AttentionCall, AttentionSite
from ieadapt.attention.layouts import TokenLayout
from ieadapt.errors import UsageError
from ieadapt.interventions.perturbation import QueryPerturbation


@dataclass(frozen=True, repr=False, eq=False)
class _GivenQueries(QueryPerturbation):
    query: Tensor

    def changed(self, query: Tensor, layout: TokenLayout, call: AttentionCall) -> Tensor:
        """The given ones."""
        return self.query.to(query)


class AverageQueries:
    """Follow the video queries of conditional rows, and let weak rows ask by their average over the steps so far.

    Of the sites that it is given, a video changes one in each step: that whose queries are furthest from their average
    (mean absolute difference). The averages stand beside the model, in float32: one query tensor per site.

    Args:
        beta: weight of the average so far against the step's queries, 0..1; 0 changes nothing.

    Raises:
        UsageError: beta outside 0..1, or a model whose token layout is not known.

    Source: EMAG (arXiv 2512.17303), its faster form EMAG-Q; drkkgy/EMAG emag/emag_util.py: same average, same distance,
    text queries as they are. There one layer is chosen for the whole batch, here one per video, so that a video does
    not depend on its batch; there queries are averaged before rotary embedding (Stable Diffusion 3 has none), here
    after it.

    Example:
        >>> AverageQueries(0.988)
        AverageQueries(0.988)
    """

    def __init__(self, beta: int | float) -> None:
        if not 0.0 <= beta <= 1.0:
            raise UsageError("the weight of an average of queries is out of range", expected="0..1", got=beta)
        self.beta, self._step = beta, -1
        self._averages: dict[tuple[AttentionSite, tuple[int, ...]], Tensor] = {}
        self._distances: defaultdict[int, dict[AttentionSite, float]] = defaultdict(dict)

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """Follow conditional rows; the output of weak rows, changed for the videos that change this site."""
        if "weak" not in call.rows.guidance:
            self._follow(call)
            return None
        rows = [row for row, video in enumerate(call.rows.video) if self._furthest(video) == call.site]
        if not rows:
            return None
        average = self._averages[call.site, tuple(call.rows.video)]
        part = call.restricted(rows)
        averaged = _GivenQueries(average[call.rows.index(rows, average.device)], scope="all")
        return call.replaced([(part, averaged(part))])

    def _follow(self, call: AttentionCall) -> None:
        if call.layout is None:
            raise UsageError(
                "averaging queries needs to know which token lies where",
                where=call.site.name,
                remedy="add the model's family to ieadapt/attention/families.py",
            )
        if call.step < self._step:  # a new run
            self._averages.clear()
        if call.step != self._step:  # of two denoisers, only the sites of the one that runs
            self._distances.clear()
        self._step = call.step
        query, key = call.query[:, :, call.layout.video.slice].float(), (call.site, tuple(call.rows.video))
        average = self._averages.get(key, query) if call.step else query
        distances = (average - query).abs().unflatten(0, (len(call.rows), -1)).flatten(1).mean(1)
        for video, distance in zip(call.rows.video, distances.tolist(), strict=True):
            self._distances[video][call.site] = distance
        self._averages[key] = average.lerp(query, 1 - self.beta)

    def _furthest(self, video: int) -> AttentionSite | None:
        distances = self._distances[video]
        return max(distances, key=distances.__getitem__, default=None)

    def __repr__(self) -> str:
        return f"AverageQueries({self.beta:g})"
