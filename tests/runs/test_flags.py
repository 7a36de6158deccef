"""Configs become flags and come back from them; a run's command line repeats it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ieadapt.methods import EnhanceConfig, GenerationConfig
from ieadapt.runs.demo import DemoRun
from ieadapt.runs.enhancing import EnhanceRun
from ieadapt.runs.flags import assemble, command_line, flags
from ieadapt.runs.measuring import MeasureRun


@dataclass(frozen=True)
class Inner:
    seed: int = field(default=7, metadata={"help": "of the inside"})
    scale: float = 1.0


@dataclass(frozen=True)
class Outer:
    seed: int = 0
    inner: Inner = field(default_factory=lambda: Inner(scale=2.0))


def test_a_nested_field_of_the_same_name_is_prefixed_and_keeps_its_default() -> None:
    listed = {flag.option: flag.default for flag in flags(Outer)}
    assert listed == {"--seed": 0, "--inner-seed": 7, "--scale": 2.0}


def test_flags_come_back_as_the_config() -> None:
    assert assemble(Outer, {"seed": 1, "inner_seed": 2, "scale": 3.0}) == Outer(1, Inner(2, 3.0))


@pytest.mark.parametrize("config", [MeasureRun, EnhanceRun, DemoRun])
def test_every_flag_is_unique_and_explained(config: type) -> None:
    listed = list(flags(config))
    assert len({flag.name for flag in listed}) == len(listed)
    assert all(flag.help for flag in listed)


def test_the_demo_is_short_unless_told_otherwise() -> None:
    assert {flag.name: flag.default for flag in flags(DemoRun)}["steps"] == 8


def test_the_command_line_says_what_differs_from_the_defaults() -> None:
    generation = GenerationConfig(num_inference_steps=8, guidance_scale=3.0)
    asked = EnhanceRun("shapes", ("a big red ball", "it's"), generation, EnhanceConfig(scale=0.5), Path("a b"), 3)
    line = command_line("enhance", asked, "runs/x")
    assert shlex.split(line) == [
        *("ieadapt", "enhance", "shapes", "--prompt", "a big red ball", "--prompt", "it's"),
        *("--steps", "8", "--guidance-scale", "3.0", "--scale", "0.5", "--profile", "a b", "--seed", "3"),
        *("--out", "runs/x"),
    ]
