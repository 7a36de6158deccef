"""Analysis by synthesis of `scenes`: what is fitted is found, what is damaged is further away."""

import dataclasses
import random

import pytest
import torch
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.testbed import Scene, render, sample_scenes
from ieadapt.testbed.fitting import HIGHEST, Quality, fit_scenes, quality_of
from ieadapt.testbed.scene import OBJECT_ATTRIBUTES
from tests.testbed.damage import DAMAGES

TWO = [scene for scene in sample_scenes(60, 21, "all") if len(scene.objects) == 2]


def moved_a_little(scene: Scene, seed: int) -> Scene:
    """The same scene, its numbers off by what a coarse search leaves."""
    chance = random.Random(seed)

    def near(value: float, by: float) -> float:
        return value + chance.uniform(-by, by)

    objects = tuple(
        thing.replace(
            position=(near(thing.position[0], 0.03), near(thing.position[1], 0.03)),
            swell=0.5,
            pace=0.5,
            tint=0.5,
            angle=near(thing.angle, 0.1),
        )
        for thing in scene.objects
    )
    shift = (4, 5)
    variation = tuple(near(value, 0.01 if place in shift else 0.05) for place, value in enumerate(scene.variation))
    return dataclasses.replace(scene, objects=objects, variation=variation)


def test_the_truth_cannot_be_told_from_its_picture() -> None:
    fits = fit_scenes(render(TWO[0]), TWO[:2], iterations=0)
    assert fits[0].psnr == HIGHEST
    assert fits[1].psnr < 20


def test_psnr_is_that_of_the_pictures() -> None:
    one, other = TWO[0], TWO[0].replace(0, tint=0.9)
    error = (render(one) - render(other)).square().mean((1, 2, 3))
    fit = fit_scenes(render(one), [other], iterations=0)[0]
    assert fit.psnr == pytest.approx(float(-10 * error.mean().log10()), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 3])
def test_numbers_that_are_off_are_found_again(number: int) -> None:
    scene = TWO[number]
    start = moved_a_little(scene, number)
    clip = render(scene)
    before, after = fit_scenes(clip, [start], iterations=0)[0], fit_scenes(clip, [start], iterations=60)[0]
    assert before.psnr < 28
    assert after.psnr > 40
    for found, true in zip(after.scene.objects, scene.objects, strict=True):
        assert found.position == pytest.approx(true.position, abs=0.01)
        assert [getattr(found, name) for name in OBJECT_ATTRIBUTES] == [
            getattr(true, name) for name in OBJECT_ATTRIBUTES
        ]


@pytest.mark.slow
def test_the_named_scene_explains_a_clip_better_than_another_of_its_attributes() -> None:
    scene = TWO[1]
    free = next(colour for colour in ("red", "green", "blue") if colour not in {o.colour for o in scene.objects})
    others = [
        scene.replace(0, colour=free),
        scene.replace(0, shape="cross" if scene.objects[0].shape != "cross" else "square", motion="left"),
        scene.replace(camera="left" if scene.camera != "left" else "right"),
        scene.replace(order=(0,)),
    ]
    named, *rest = (fit.psnr for fit in fit_scenes(render(scene), [scene, *others], iterations=15))
    assert named > max(rest) + 5


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nothing to fit.*expected a clip of shape \(16, 3, 128, 128\)"):
        fit_scenes(torch.zeros(4, 3, 128, 128), [TWO[0]])
    with pytest.raises(UsageError, match="0 scenes"):
        fit_scenes(torch.zeros(16, 3, 128, 128), [])


def _quality(clip: Tensor, scene: Scene, iterations: int = 0) -> Quality:
    return quality_of(clip, fit_scenes(clip, [scene], iterations)[0])


def test_truth_is_flawless() -> None:
    for scene in TWO[:4]:
        assert _quality(render(scene), scene) == Quality(HIGHEST, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_lowers_the_fit_the_more_the_stronger_it_is(kind: str) -> None:
    scene = TWO[0]
    clip = render(scene)
    fits = [_quality(DAMAGES[kind](clip, scene, strength), scene).fit for strength in (0.25, 0.5, 0.75, 1)]
    assert all(one > other for one, other in zip([HIGHEST, *fits[:-1]], fits, strict=True))
    assert fits[-1] < 31


@pytest.mark.parametrize(
    ("kind", "measure", "worse"),
    [
        ("blur", "detail", -0.5),
        ("missing texture", "detail", -0.3),
        ("flicker", "flicker", 10),
        ("noise", "flicker", 10),
        ("wandering colour", "constancy", -0.3),
    ],
)
def test_each_measure_sees_the_damage_it_is_for(kind: str, measure: str, worse: float) -> None:
    scene = TWO[0]
    found = _quality(DAMAGES[kind](render(scene), scene, 1.0), scene)
    perfect = Quality(HIGHEST, 1.0, 1.0, 0.0)
    change = getattr(found, measure) - getattr(perfect, measure)
    assert change / worse > 1


def test_a_blur_is_not_explained_away_by_fitting() -> None:
    scene = TWO[0]
    quality = _quality(DAMAGES["blur"](render(scene), scene, 0.5), scene, iterations=20)
    assert quality.fit < 30
    assert quality.detail < 0.6
