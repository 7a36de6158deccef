"""Configurations that cannot be, and what a configuration needs."""

from __future__ import annotations

from typing import Any

import pytest

from ieadapt.errors import UsageError
from ieadapt.tasks.enhance.config import EnhanceConfig, Schedule

DIRECT: dict[str, Any] = {"mode": "direct", "perturbation": "uniform"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "both"}, "unknown mode of an enhancement; expected guidance, direct, combine; got both"),
        ({"weighting": "much"}, "unknown weighting of an enhancement; expected even, ep"),
        ({"scope": "text"}, "unknown scope of an enhancement; expected video, video-renormalised, all"),
        ({"branch": "uncond"}, "unknown branch of an enhancement; expected both, cond"),
        ({**DIRECT, "scale": 1.5}, r"scale is out of range; expected 0..1 in direct mode; got 1.5"),
        ({"scale": 101}, r"expected 0..100 in guidance mode; got 101"),
        ({"start": -0.1}, "not a window of steps"),
        ({"stop": 1.1}, "not a window of steps"),
        ({"rescale": 1.2}, r"the rescale is out of range; expected 0..1; got 1.2"),
        ({**DIRECT, "sharpen": 0}, "temperature of sharpened maps is out of range"),
        ({**DIRECT, "sharpen": 1.5}, "temperature of sharpened maps is out of range"),
        ({"sharpen": 0.5}, "guidance mode has no sharpen; expected sharpen=1.0; got sharpen=0.5"),
        ({"branch": "cond"}, "guidance mode has no branch"),
        ({**DIRECT, "rescale": 0.5}, "direct mode has no rescale"),
        ({"mode": "direct", "perturbation": "skip-block"}, "direct mode has no skip-block; expected mode=guidance"),
        ({"perturbation": "cross-frame:4"}, "guidance mode has no cross-frame; expected mode=direct"),
        ({"perturbation": "freeu:1:1:1:1"}, "guidance mode has no freeu; expected mode=direct"),
        ({"perturbation": "skip-block:2"}, "unknown perturbation; expected identity, .*; got skip-block:2"),
        ({"mode": "direct", "perturbation": "cross-frame"}, "unknown perturbation; expected .*cross-frame:WEIGHT"),
        ({"mode": "direct", "perturbation": "cross-frame:-1"}, "cross-frame is out of range; expected > 0"),
        ({"mode": "direct", "perturbation": "freeu:1:2:3"}, "unknown perturbation; expected .*freeu:S1:S2:B1:B2"),
        (
            {"mode": "direct", "perturbation": "freeu:1:1:1:1", "start": 0.5},
            "freeu has no start; expected start=0.0",
        ),
        ({"mode": "combine"}, "combine mode has no identity; expected mode=guidance"),
        ({"perturbation": "interval"}, "guidance mode has no interval; expected mode=combine"),
        ({"mode": "combine", "perturbation": "apg:15:0"}, "unknown perturbation; expected .*apg:RADIUS:ETA:MOMENTUM"),
        ({"mode": "combine", "perturbation": "cfg-zero:inf"}, "an amount of cfg-zero is out of range"),
        ({"mode": "combine", "perturbation": "interval", "scale": 2}, "interval has no share; expected scale=0 or 1"),
        ({"mode": "combine", "perturbation": "interval", "sites": "spatial"}, "interval has no sites"),
        ({"mode": "combine", "perturbation": "interval", "rescale": 0.5}, "combine mode has no rescale"),
        (
            {"mode": "direct", "perturbation": "freeu:1:1:1:1", "start": 0.0, "scale": 0.5},
            "freeu has no share; expected scale=0 or 1",
        ),
        (
            {"perturbation": "skip-block", "heads": "top=1"},
            "skip-block has no heads; expected heads=all; got heads",
        ),
        (
            {"perturbation": "random-block"},
            "unknown perturbation; expected .*, random-block:AMOUNT, .*; got random-block",
        ),
        ({"perturbation": "random-block:0"}, "an amount of random-block is out of range; expected > 0"),
        ({"mode": "direct", "perturbation": "random-block:1"}, "direct mode has no random-block"),
        ({"perturbation": "random-block:1", "heads": "0"}, "random-block has no heads"),
        ({"perturbation": "average-queries:2"}, r"average of queries is out of range; expected 0\.\.1; got 2"),
        ({"perturbation": "average-queries:0.9", "entropy": "online"}, "average-queries has no entropy"),
        ({"perturbation": "skip-block", "scope": "all"}, "skip-block has no scope"),
        ({"mode": "direct", "perturbation": "cross-frame:4", "weighting": "ep"}, "cross-frame has no weighting"),
        ({"entropy": "online:0"}, "not a number of steps to measure; expected online:STEPS, 1 or more; got online:0"),
        ({"entropy": "online:some"}, "unknown source of entropy"),
        ({"entropy": "profile:2"}, "unknown source of entropy"),
        ({"entropy": "guess"}, "unknown source of entropy"),
        ({"perturbation": "mix"}, "unknown perturbation; expected identity"),
        ({"sites": "top=0"}, "a choice of no sites"),
        ({"schedule": "sine"}, "unknown schedule of the scale"),
        ({"heads": "few"}, "unknown choice of heads"),
        ({"heads": "0,few"}, "unknown choice of heads; expected .* or heads as in 0,3 or '#5:0,#7:3'; got 0,few"),
    ],
)
def test_configurations_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EnhanceConfig(**arguments)


@pytest.mark.parametrize(
    ("config", "needs"),
    [
        (EnhanceConfig(), True),
        (EnhanceConfig(start=0, entropy="online"), False),
        (EnhanceConfig(start=0, scale=0), False),
        (EnhanceConfig(start=0, sites="temporal"), False),
        (EnhanceConfig.preset("apg"), False),
        (EnhanceConfig(start=0, sites="temporal:random=2"), False),
        (EnhanceConfig(start=0, sites="temporal:middle=2"), False),
        (EnhanceConfig(start=0, sites="temporal:level-random=2"), True),
        (EnhanceConfig(start=0, sites="temporal", heads="top=1"), True),
        (EnhanceConfig(start=0, sites="temporal", heads="0,1"), False),
        (EnhanceConfig(start=0, sites="temporal", weighting="ep"), True),
        (EnhanceConfig(start=0, **DIRECT, sites="temporal", sharpen=0.5), True),
        (EnhanceConfig(start=0, **DIRECT, sites="temporal", sharpen=0.5, sharpen_sites="spatial"), False),
    ],
)
def test_what_needs_a_profile(config: EnhanceConfig, needs: bool) -> None:
    assert config.needs_profile == needs


def test_it_shows_what_is_not_at_its_default() -> None:
    assert repr(EnhanceConfig()) == "EnhanceConfig()"
    assert eval(repr(EnhanceConfig.preset("seg"))) == EnhanceConfig.preset("seg")


def test_online_steps() -> None:
    assert [EnhanceConfig(start=0, entropy=text).online_steps for text in ("profile", "online", "online:5")] == [
        0,
        2,
        5,
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear:1:0", [1, 0.75, 0.5, 0.25, 0]),
        ("linear:0.5:1.5", [0.5, 0.75, 1, 1.25, 1.5]),
        ("cosine", [1, 0.853553, 0.5, 0.146447, 0]),
        ("cosine:0:2", [0, 0.292893, 1, 1.707107, 2]),
        ("1, 0.5, 0, 0, 2", [1, 0.5, 0, 0, 2]),
    ],
)
def test_factors(text: str, expected: list[float]) -> None:
    assert Schedule.parse(text).factors(5) == pytest.approx(expected, abs=1e-6)


def test_a_run_of_one_step_has_the_first_factor() -> None:
    assert Schedule.parse("linear:3:0").factors(1) == [3]


def test_a_list_of_another_length() -> None:
    with pytest.raises(UsageError, match="another length than the run; expected 3 factors, one per step; got 2"):
        Schedule.parse("1,0.5").factors(3)


@pytest.mark.parametrize("text", ["linear", "linear:1", "linear:1:2:3", "sine", "1,much", "", "cosine:a:b"])
def test_no_schedule(text: str) -> None:
    with pytest.raises(UsageError, match="unknown schedule of the scale; expected constant, linear:A:B, cosine"):
        Schedule.parse(text)


@pytest.mark.parametrize("text", ["linear:1:-1", "1,-0.5", "1,inf", "linear:nan:1"])
def test_factors_out_of_range(text: str) -> None:
    with pytest.raises(UsageError, match=r"factor of the scale's schedule is out of range; expected >= 0"):
        Schedule.parse(text)
