"""What a screen can be asked for, what it costs, and how its passes become effects."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ieadapt.errors import UsageError
from ieadapt.metrics.intervals import mean_interval
from ieadapt.notation import format_duration, parse_seconds
from ieadapt.tasks.measure.layer_choice import SCREENED
from ieadapt.tasks.price import PassTimes
from ieadapt.tasks.screen.config import CHUNK, EFFECTS, ScreenConfig, ScreenPlan
from ieadapt.tasks.screen.method import effects_table
from ieadapt.tasks.study.grid import Condition


@pytest.mark.parametrize("at", ["", "a", "1", "-0.1", "0.2,,0.4", ",".join(f"0.{n}" for n in range(100, 121))])
def test_steps_that_are_no_fractions_are_refused(at: str) -> None:
    with pytest.raises(UsageError, match=r"not a choice of steps; expected 1 to 20 fractions.*--at"):
        ScreenConfig(at=at)


def test_an_unknown_map_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown perturbation"):
        ScreenConfig(maps="identity,melt")


def test_steps_of_short_and_long_runs() -> None:
    assert ScreenConfig().steps(20) == (4, 9, 14, 18)
    assert ScreenConfig().steps(50) == (10, 22, 35, 45)
    assert ScreenConfig().steps(1) == (0,)
    assert ScreenConfig(at="0.99,0").steps(4) == (0, 3)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2 h", 7200)])
def test_budgets(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-1m", "0s", "1d", "infh"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"not a time; expected a number with s, m or h, such as 30m; .*--budget"):
        parse_seconds(text)


def _plan(**changes: Any) -> ScreenPlan:
    conditions = [Condition((site,), "joint", name) for site in ("a", "b") for name in ("identity", "uniform")]
    plan = ScreenPlan(conditions, (4, 9, 14, 18), 4, 1, 20, PassTimes(2.0, {"a": 1.0, "b": 0.5}))
    return dataclasses.replace(plan, **changes)


def test_the_price_counts_trajectories_plain_passes_and_shares() -> None:
    plan = _plan()
    assert plan.passes == 4 * 4 * 4
    assert plan.forwards == 4 * (20 + 4 * (1 + 3.0))
    assert plan.seconds == 2 * plan.forwards
    assert _plan(batch=2).seconds == plan.forwards  # a batch of two takes the timed two seconds for both
    assert _plan(batch=3).seconds == 2 * plan.seconds / 4  # two batches, one of them not full
    assert _plan(films=7).seconds == plan.seconds + 2 * 7 * 20
    assert ", 7 videos as a check, about " in _plan(films=7).summary()
    many = _plan(conditions=plan.conditions * CHUNK)
    assert many.forwards == 4 * (20 + 4 * (4 + 3.0 * CHUNK))
    assert plan.summary() == (
        "4 replacements at 2 sites x 4 steps x 4 prompts: 64 passes of 75 % of the network, about 5 min "
        "(a whole pass takes 2 s)"
    )


def test_a_budget_takes_fewer_prompts_then_fewer_steps() -> None:
    plan = _plan()
    assert plan.within(plan.seconds) == plan
    assert plan.within(plan.seconds - 1) == _plan(prompts=3)
    assert plan.within(_plan(prompts=2).seconds - 1) == _plan(prompts=2, steps=(4, 9, 18))
    least = _plan(prompts=1, steps=(9,))
    assert plan.within(least.seconds) == least
    with pytest.raises(UsageError, match=r"below one prompt at one step; expected at least 48 s; got 47 s"):
        plan.within(47)


def test_times_as_a_person_says_them() -> None:
    assert [format_duration(each) for each in (0.2, 89, 90, 5399, 5400, 36_000)] == [
        *("1 s", "89 s", "2 min", "90 min", "1.5 h", "10 h"),
    ]


def _passes(prompts: int) -> list[dict[str, Any]]:
    rows = []
    for prompt in range(prompts):
        for step in (4, 9, 14, 18):
            place = {"site": "a", "kind": "joint", "head": None, "map": "identity", "seed": prompt}
            values = {"change": step + prompt, "rise": float(step), "lost": -float(step)}
            rows.append({**place, "prompt": f"p{prompt}", "step": step, "num_inference_steps": 20, **values})
    return rows


def test_effects_are_means_over_the_steps_that_speak_for_them() -> None:
    assert tuple(EFFECTS) == SCREENED
    table = effects_table(_passes(4))
    found = dict(table.select("effect", "value").rows())
    assert found == {"structure": 11.25 + 1.5, "quality": 9 + 1.5, "motion": -6.5, "flicker": 16.0}
    interval = mean_interval([11.25 + prompt for prompt in range(4)])
    assert table.filter(effect="structure").select("low", "high", "prompts").row(0) == (interval.low, interval.high, 4)


def test_no_interval_from_two_prompts_and_no_effect_without_a_step_for_it() -> None:
    table = effects_table(_passes(2))
    assert table["low"].null_count() == table.height == 4
    middle = effects_table(row for row in _passes(3) if row["step"] == 9)
    assert middle["effect"].to_list() == ["structure", "quality", "motion"]


def test_a_step_that_does_not_run_a_site_says_nothing() -> None:
    rows = _passes(3)
    for row in rows:
        if row["step"] == 18:
            del row["change"], row["rise"], row["lost"]
    assert dict(effects_table(rows).select("effect", "value").rows())["flicker"] == 14.0
    assert effects_table([]).is_empty()
