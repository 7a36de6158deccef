"""Steps and row maps over whole pipeline runs, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ieadapt.attention import AttentionCall, RowMap, find_sites, intercept
from ieadapt.errors import FailureError, UsageError
from tests.families import (
    GUIDED,
    PROMPTS,
    SEVERAL_VIDEOS,
    UNGUIDED,
    captured,
    every_family,
    predict,
    run,
    tiny_pipeline,
)

SPLIT = ("wan", "hunyuanvideo")
ROWS = RowMap(("uncond", "uncond", "cond", "cond"), ("source", "target") * 2, (0, 1, 0, 1), repeats=3)


class _Calls:
    """Keeps (step, fraction) and rows of every call of a site, with Mochi's rows put together."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float]] = []
        self.rows: list[RowMap] = []

    def __call__(self, call: AttentionCall) -> None:
        if call.earlier:
            last = self.rows[-1]
            self.rows[-1] = RowMap(
                last.guidance + call.rows.guidance, last.stream + call.rows.stream, last.video + call.rows.video
            )
            return
        self.steps.append((call.step, call.fraction))
        self.rows.append(RowMap(call.rows.guidance, call.rows.stream, call.rows.video))


def _first_site(family: str) -> Any:
    return next(site for site in find_sites(tiny_pipeline(family)) if site.kind not in ("text", "cross"))


def _watch(family: str, *args: Any, streams: Any = None, **kwargs: Any) -> _Calls:
    with intercept(tiny_pipeline(family), _Calls(), [_first_site(family)], streams=streams, guidance="all") as calls:
        run(family, *args, **kwargs)
    return calls


@every_family
def test_steps_and_fractions_of_a_whole_run(family: str) -> None:
    calls = _watch(family, steps=4)
    expected = [(step, step / 4) for step in range(4)]
    assert calls.steps == ([pair for pair in expected for _ in "cu"] if family in SPLIT else expected)


@every_family
def test_a_second_run_in_the_same_block_starts_from_step_0(family: str) -> None:
    with intercept(tiny_pipeline(family), _Calls(), [_first_site(family)], guidance="all") as calls:
        run(family, steps=3, **UNGUIDED[family], **({"true_cfg_scale": 1.0} if family == "hunyuanvideo" else {}))
        run(family, steps=2, **UNGUIDED[family], **({"true_cfg_scale": 1.0} if family == "hunyuanvideo" else {}))
    assert [step for step, _ in calls.steps] == [0, 1, 2, 0, 1]


@every_family
def test_guided_rows_of_two_prompts_and_two_videos_each(family: str) -> None:
    several = {"num_videos_per_prompt": 2} if family in SEVERAL_VIDEOS else {}
    n = 4 if several else 2
    calls = _watch(family, PROMPTS, **several, streams=("source", "target"))
    streams = ("source",) * (n // 2) + ("target",) * (n // 2)
    if family in SPLIT:
        assert calls.rows[:2] == [RowMap((branch,) * n, streams, tuple(range(n))) for branch in ("cond", "uncond")]
    else:
        assert calls.rows[0] == RowMap(("uncond",) * n + ("cond",) * n, streams * 2, tuple(range(n)) * 2)


@every_family
def test_rows_without_guidance(family: str) -> None:
    off = {"true_cfg_scale": 1.0} if family == "hunyuanvideo" else {}
    calls = _watch(family, PROMPTS, **UNGUIDED[family], **off)
    assert set(calls.rows) == {RowMap(("cond",) * 2, ("none",) * 2, (0, 1))}


def test_dynamic_guidance_keeps_both_branches() -> None:
    calls = _watch("cogvideox", use_dynamic_cfg=True, steps=3)
    assert set(calls.rows) == {RowMap(("uncond", "cond"), ("none", "none"), (0, 0))}


@every_family
def test_a_denoiser_called_by_hand_counts_each_call_as_a_step(family: str) -> None:
    denoiser, _ = captured(family)
    with intercept(denoiser, _Calls(), [_first_site(family)], guidance="all") as calls:
        predict(family)
        predict(family)
    assert calls.steps == [(0, 0.0), (1, 0.0)]
    assert {branch for rows in calls.rows for branch in rows.guidance} == {"cond"}


def test_a_window_acts_on_its_steps_only() -> None:
    with intercept(tiny_pipeline("wan"), _Calls(), "blocks.0.attn1", steps=(0.25, 0.75)) as calls:
        run("wan", steps=4)
    assert sorted({step for step, _ in calls.steps}) == [1, 2]


def test_too_few_streams() -> None:
    with pytest.raises(UsageError, match=r"more videos than streams"):
        _watch("wan", PROMPTS, streams=("source",))


def test_a_third_branch_in_the_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_pipeline("animatediff")
    monkeypatch.setattr(type(pipe), "do_perturbed_attention_guidance", True, raising=False)
    with pytest.raises(FailureError, match=r"more than the two branches.*use the plain pipeline"):
        _watch("animatediff")


def test_guided_arguments_are_those_of_the_families() -> None:
    assert set(GUIDED) == set(UNGUIDED)
    assert torch.is_tensor(run("wan"))


def test_rows_of_a_branch() -> None:
    assert ROWS.denoiser_rows(("cond",)) == [2, 3]
    assert ROWS.index([2, 3]) == slice(6, 12)


def test_rows_of_a_stream_of_a_branch() -> None:
    assert ROWS.denoiser_rows(("cond",), ("target",)) == [3]
    assert ROWS.denoiser_rows(stream=("source",)) == [0, 2]


def test_rows_that_are_no_neighbours_are_indices() -> None:
    index = ROWS.index([0, 2])
    assert isinstance(index, torch.Tensor)
    assert index.tolist() == [0, 1, 2, 6, 7, 8]


def test_rows_that_are_taken_know_where_they_were() -> None:
    assert ROWS.take([1, 3]).take([1]).batch == (3,)
