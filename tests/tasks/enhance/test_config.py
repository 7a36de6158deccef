"""Configurations that cannot be, and what a configuration needs."""

from __future__ import annotations

from typing import Any

import pytest

from ieadapt.errors import UsageError
from ieadapt.tasks.enhance.config import EnhanceConfig

DIRECT: dict[str, Any] = {"mode": "direct", "perturbation": "uniform"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "both"}, "unknown mode of an enhancement; expected guidance, direct; got both"),
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
        ({"sharpen": 0.5}, "guidance mode has no sharpen; got sharpen=0.5"),
        ({"branch": "cond"}, "guidance mode has no branch"),
        ({**DIRECT, "rescale": 0.5}, "direct mode has no rescale"),
        ({"mode": "direct", "perturbation": "skip-block"}, "direct mode has no skip-block; expected mode=guidance"),
        ({"perturbation": "cross-frame:4"}, "guidance mode has no cross-frame; expected mode=direct"),
        ({"perturbation": "freeu:1:1:1:1"}, "guidance mode has no freeu; expected mode=direct"),
        ({"perturbation": "skip-block:2"}, "missing or wrong; expected skip-block; got skip-block:2"),
        ({"mode": "direct", "perturbation": "cross-frame"}, "expected cross-frame and 1 positive numbers with colons"),
        ({"mode": "direct", "perturbation": "cross-frame:-1"}, "missing or wrong"),
        ({"mode": "direct", "perturbation": "freeu:1:2:3"}, "expected freeu and 4 positive numbers"),
        ({"mode": "direct", "perturbation": "freeu:1:1:1:1", "start": 0.5}, "in every step; expected start=0.0"),
        (
            {"mode": "direct", "perturbation": "freeu:1:1:1:1", "start": 0.0, "scale": 0.5},
            "in every step; expected scale=0 or 1",
        ),
        ({"perturbation": "skip-block", "heads": "top=1"}, "skip-block has no heads; expected heads=all; got top=1"),
        ({"perturbation": "skip-block", "scope": "all"}, "skip-block has no scope"),
        ({"mode": "direct", "perturbation": "cross-frame:4", "weighting": "ep"}, "cross-frame has no weighting"),
        ({"entropy": "online:0"}, "unknown source of entropy; expected profile, online or online:STEPS; got online:0"),
        ({"entropy": "online:some"}, "unknown source of entropy"),
        ({"entropy": "profile:2"}, "unknown source of entropy"),
        ({"entropy": "guess"}, "unknown source of entropy"),
        ({"schedule": "sine"}, "unknown schedule of the scale"),
        ({"heads": "few"}, "unknown choice of heads"),
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
        (EnhanceConfig(start=0, sites="temporal:random=2"), False),
        (EnhanceConfig(start=0, sites="temporal:middle=2"), False),
        (EnhanceConfig(start=0, sites="temporal:level-random=2"), True),
        (EnhanceConfig(start=0, sites="temporal", heads="top=1"), True),
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
