"""Configs become flags and come back from them; a run's command line repeats it."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ieadapt.runs.flags import assemble, command_line, flags
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.demo.run import DemoRun
from ieadapt.tasks.edit.config import EditConfig, EditRun, edit_preset
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.run import EnhanceRun
from ieadapt.tasks.measure.run import MeasureRun


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


def test_what_is_not_given_keeps_the_default_of_the_outer_config() -> None:
    assert assemble(Outer, {"inner_seed": 2}) == Outer(0, Inner(2, 2.0))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_flag_that_is_given_beats_a_preset_also_at_its_default(scale: float) -> None:
    """`--preset pag` has scale 3; the default of an enhancement is 1."""
    given = {"model": "scenes", "prompts": ("a ball",), "preset": "pag"}
    assert assemble(EnhanceRun, given).method == EnhanceConfig.preset("pag")
    run = assemble(EnhanceRun, {**given, "scale": scale})
    assert run.method == EnhanceConfig.preset("pag", scale=scale)
    line = shlex.split(command_line("enhance", run, "runs/x"))
    assert line[line.index("--scale") + 1] == str(scale)
    assert line[line.index("--preset") + 1] == "pag"
    assert "--sites" not in line


def test_the_same_rule_holds_for_edits() -> None:
    given = {
        "model": "scenes",
        "prompts": ("a ball",),
        "source_seed": 1,
        "source_prompt": "a cube",
        "preset": "inversion",
    }
    assert assemble(EditRun, given).config == edit_preset("inversion")
    default = EditConfig().inject_branch
    run = assemble(EditRun, {**given, "inject_branch": default})
    assert run.config == dataclasses.replace(edit_preset("inversion"), inject_branch=default)
    assert run.config != edit_preset("inversion")


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
    prompts, enhancement = ("a big red ball", "it's"), EnhanceConfig(scale=0.5)
    asked = EnhanceRun("scenes", prompts, generation, 3, enhancement=enhancement, profile=Path("a b"))
    line = command_line("enhance", asked, "runs/x")
    assert shlex.split(line) == [
        *("ieadapt", "enhance", "scenes", "--prompt", "a big red ball", "--prompt", "it's"),
        *("--steps", "8", "--guidance-scale", "3.0", "--seed", "3", "--scale", "0.5", "--profile", "a b"),
        *("--out", "runs/x"),
    ]
