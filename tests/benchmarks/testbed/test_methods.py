"""What is compared: names, groups, controls, and passes as they are counted."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.testbed.editing import EDIT_METHODS, PairEditor
from benchmarks.testbed.generating import VARIANTS
from benchmarks.testbed.passes import counted_passes
from benchmarks.testbed.scenes import bench_pairs
from ieadapt.models import load
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.edit.config import EDIT_PRESETS
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.presets import PRESETS
from tests.tiny import build

BASE = GenerationConfig(4, guidance_scale=3.0)


def test_ours_and_the_baselines_are_there() -> None:
    assert {"plain", "default", *PRESETS} <= set(VARIANTS)
    assert VARIANTS["default"].enhance == EnhanceConfig()
    assert {"copy", "reconstruction", "ceiling", *EDIT_PRESETS} == set(EDIT_METHODS)
    assert not [name for name in (*VARIANTS, *EDIT_METHODS) if "," in name], "names are listed with commas"


def test_controls_differ_from_the_default_in_their_sites_alone() -> None:
    default = VARIANTS["default"]
    assert len(default.controls) == 4
    for name in default.controls:
        changed = VARIANTS[name].enhance
        assert "random=0.5" in changed.sites
        assert dataclasses.replace(changed, sites="auto", seed=0) == default.enhance


def test_plain_settings_change_guidance_and_steps() -> None:
    assert VARIANTS["plain-guidance-2"].generation(BASE) == dataclasses.replace(BASE, guidance_scale=2.0)
    assert VARIANTS["plain-steps-1.5"].generation(BASE) == dataclasses.replace(BASE, num_inference_steps=6)
    assert VARIANTS["plain"].generation(BASE) == BASE


@pytest.mark.parametrize("name", ["plain", "plain-steps-1.5", "pag", "random-0", "enhance-a-video"])
def test_counted_passes_are_those_that_the_settings_promise(name: str) -> None:
    pipe, size = build("animatediff"), {"num_frames": 4, "height": 16, "width": 24}
    variant = VARIANTS[name]
    with counted_passes(pipe) as passes:
        variant.videos(pipe, ["a ball", "a cat"], [0, 1], dataclasses.replace(BASE, **size), None)
    steps = variant.generation(BASE).num_inference_steps
    promised = 2 * (2 * steps if variant.enhance is None else variant.enhance.passes(steps))
    assert passes.rows == promised
    pipe("a ball", num_inference_steps=1, **size)
    assert passes.rows == promised, "nothing is counted after the block"


@pytest.mark.slow
def test_an_inversion_is_made_once_for_a_pair_and_forgotten_with_it() -> None:
    editor, (first, second) = PairEditor(load("scenes"), GenerationConfig(2), None), bench_pairs(2)
    with counted_passes(editor.pipe) as passes:
        frames, facts = editor.edited(first, EDIT_PRESETS["inversion"])
    assert facts["passes"] == passes.rows > 4
    with counted_passes(editor.pipe) as passes:
        again, told = editor.edited(first, EDIT_PRESETS["inversion"])
    assert passes.rows == 4, "one step of source and target, guided: the first of two is skipped"
    assert (again == frames).all()
    assert told["passes"] == facts["passes"]
    with counted_passes(editor.pipe) as passes:
        editor.reconstructed(second)
    assert passes.rows > 0
    assert editor.copied(second)[1]["passes"] == 0
