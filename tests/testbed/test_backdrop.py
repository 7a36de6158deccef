"""Which background a clip of `scenes` shows, and how it lies."""

import pytest
import torch

from ieadapt.testbed import BACKGROUNDS, Scene, render, sample_scenes
from ieadapt.testbed.backdrop import place_patterns
from ieadapt.testbed.scene import SCENE_NUMBERS

SCENES = {scene.background: scene for scene in reversed(sample_scenes(24, 31, "all"))}
"""One of each background."""


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_background_is_recognised_behind_objects_and_placed(background: str) -> None:
    scene = SCENES[background]
    placements = place_patterns(render(scene))
    assert max(placements, key=lambda name: placements[name].match) == background
    number = dict(zip(SCENE_NUMBERS, scene.variation, strict=False))
    assert placements[background].turn == pytest.approx(number["turn"], abs=0.05)
    assert placements[background].scale == pytest.approx(number["scale"], abs=0.06)
    # its place counts up to the pattern's own periods: at the found one the picture is the same
    found = placements[background]
    variation = list(scene.variation)
    for name in ("turn", "scale", "shift_x", "shift_y"):
        variation[SCENE_NUMBERS.index(name)] = getattr(found, name)
    bare, true = (
        render(Scene((scene.objects[0].replace(position=(-1.0, -1.0)),), background, variation=tuple(numbers)))[8]
        for numbers in (variation, scene.variation)
    )
    elsewhere = list(scene.variation)
    elsewhere[SCENE_NUMBERS.index("shift_x")] += 0.09
    elsewhere[SCENE_NUMBERS.index("shift_y")] += 0.2
    other = render(Scene((scene.objects[0].replace(position=(-1.0, -1.0)),), background, variation=tuple(elsewhere)))[8]
    assert (bare - true).square().mean() < 0.8 * (other - true).square().mean()


def test_a_blank_clip_matches_nothing() -> None:
    placements = place_patterns(torch.full((16, 3, 128, 128), 0.4))
    assert max(placement.match for placement in placements.values()) < 0.1
