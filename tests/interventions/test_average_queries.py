"""Averaged queries: the average over steps, the choice of one site per video, and the guided step as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ieadapt.attention import AttentionCall, DenoiserCall, find_sites, intercept, wrap_denoiser
from ieadapt.errors import UsageError
from ieadapt.interventions import AverageQueries
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from tests.families import PROMPTS, every_family, run, tiny_pipeline
from tests.interventions.test_kept_output import LAYOUT, joint_call, with_attention
from tests.interventions.test_perturbation import make_call
from tests.tasks.enhance.test_guidance import one_site

BETA = 0.75


def _call(
    step: int, branch: str = "cond", site: str = "a", shift: float = 0.0, seed: int | None = None
) -> AttentionCall:
    """A joint call of two videos with random queries, in the second video moved by a number."""
    call = joint_call()
    query = torch.randn(call.query.shape, generator=torch.Generator().manual_seed(step if seed is None else seed))
    query[1] += shift
    return with_attention(
        replace(
            call,
            site=replace(call.site, name=site),
            step=step,
            attention=replace(call.attention, query=query),
            rows=replace(call.rows, guidance=(branch, branch)),
        )
    )


def test_weak_rows_ask_by_the_average_and_the_text_by_itself() -> None:
    averaged, average = AverageQueries(BETA), None
    for step in range(3):
        query = _call(step).query
        average = query if average is None else BETA * average + (1 - BETA) * query
        assert averaged(_call(step)) is None
    weak = _call(2, "weak")
    query = weak.query.clone()
    query[:, :, LAYOUT.video.slice] = average[:, :, LAYOUT.video.slice]
    expected = F.scaled_dot_product_attention(query, weak.key, weak.value, weak.mask, scale=weak.scale)
    torch.testing.assert_close(averaged(weak), expected)


def test_every_video_changes_the_site_that_has_moved_most() -> None:
    averaged = AverageQueries(BETA)
    for site in ("a", "b"):
        averaged(_call(0, site=site))
    averaged(_call(1, site="a"))
    averaged(_call(1, site="b", shift=50.0, seed=0))
    changed = {}
    for site in ("a", "b"):
        weak = _call(1, "weak", site, seed=0)
        changed[site] = (averaged(weak) - weak.output).abs().amax((1, 2, 3)) > 1e-6
    assert {site: rows.tolist() for site, rows in changed.items()} == {"a": [True, False], "b": [False, True]}


@pytest.mark.parametrize("steps", [(0, 1, 0), (1, 2, 1), (0, 0)])
def test_a_new_run_begins_anew(steps: tuple[int, ...]) -> None:
    averaged = AverageQueries(BETA)
    for step in steps[:-1]:
        averaged(_call(step))
    averaged(_call(steps[-1], seed=9))
    weak = _call(steps[-1], "weak", seed=9)
    torch.testing.assert_close(averaged(weak), weak.output)


def test_a_site_that_no_longer_runs_is_not_chosen() -> None:
    averaged = AverageQueries(BETA)
    for step in (0, 1):
        averaged(_call(step, site="a"))
    averaged(_call(2, site="b"))
    averaged(_call(3, site="b"))
    assert averaged(_call(3, "weak", "b")) is not None


class _Seen:
    """The queries of a site and the calls of the denoiser, by step, of conditional rows."""

    def __init__(self) -> None:
        self.queries: dict[int, list[Tensor]] = {}
        self.calls: dict[int, tuple[DenoiserCall, Tensor]] = {}

    def attention(self, call: AttentionCall) -> None:
        self.queries.setdefault(call.step, []).append(call.query[:, :, call.layout.video.slice].clone())

    def denoiser(self, call: DenoiserCall, prediction: Tensor) -> None:
        if "cond" in call.rows.guidance:
            self.calls[call.step] = call, prediction.clone()


@every_family
def test_the_guided_step_is_the_formula(family: str) -> None:
    """In the first step the average is the queries themselves, so that nothing changes; the second is by hand."""
    pipe, seen, guided = tiny_pipeline(family), _Seen(), _Seen()
    name = next(site.name for site in find_sites(pipe) if site.name in one_site(family) or site.kind == "temporal")
    config = EnhanceConfig(start=0, perturbation=f"average-queries:{BETA}", sites=name, scale=2)
    with intercept(pipe, seen.attention, name), wrap_denoiser(pipe, seen.denoiser):
        run(family, PROMPTS)
    with enhancement(pipe, config), wrap_denoiser(pipe, guided.denoiser):
        run(family, PROMPTS)
    queries = zip(seen.queries[0], seen.queries[1], strict=True)
    parts = iter([BETA * first + (1 - BETA) * second for first, second in queries])
    call, plain = seen.calls[1]
    rows, turns = call.rows.denoiser_rows(("cond",)), iter(range(len(call.rows)))

    def averaged(each: AttentionCall) -> Tensor | None:
        whole = len(each.rows) == len(call.rows)  # Mochi calls once per row
        if not whole and next(turns) not in rows:
            return None
        query, index = each.query.clone(), each.rows.index(rows if whole else [0], each.query.device)
        of_rows = query[index]
        of_rows[:, :, each.layout.video.slice] = next(parts)
        query[index] = of_rows
        return F.scaled_dot_product_attention(query, each.key, each.value, each.mask, scale=each.scale)

    with intercept(call.module, averaged, name), torch.no_grad():
        weak = call.module(**call.arguments)[0]
    torch.testing.assert_close(guided.calls[0][1], seen.calls[0][1], rtol=1e-4, atol=1e-5)
    delta = guided.calls[1][1][rows] - plain[rows]
    assert delta.abs().max() > 1e-5
    torch.testing.assert_close(delta, 2 * (plain[rows] - weak[rows]), rtol=1e-3, atol=1e-4)


@every_family
def test_a_weight_of_nothing_changes_nothing(family: str) -> None:
    plain = run(family)
    config = EnhanceConfig(start=0, perturbation="average-queries:0", sites="temporal/joint", scale=2)
    with enhancement(tiny_pipeline(family), config) as state:
        torch.testing.assert_close(run(family), plain, rtol=1e-3, atol=1e-3)
    assert state.weak_passes == 2


def test_a_model_without_layout_is_refused() -> None:
    with pytest.raises(UsageError, match="averaging queries needs to know which token lies where"):
        AverageQueries(0.5)(make_call())
