"""Accuracy of clips of `scenes`: full marks for truth, and each wrong attribute lowers its own component."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.testbed import Scene, caption, render, sample_scenes
from ieadapt.testbed.score import COMPONENTS, Accuracy, score_scene
from tests.testbed.damage import DAMAGES

SCENE = next(
    scene
    for scene in sample_scenes(60, 21, "all")
    if len({thing.motion for thing in scene.objects}) == len(scene.objects) == 2
    and scene.camera != "still"
    and scene.background != "stripes"  # which move alike to the right and downwards
)
"""Two objects that do different things before a moving camera."""


@pytest.fixture(scope="module")
def truth() -> Accuracy:
    return score_scene(render(SCENE), caption(SCENE), iterations=0).accuracy


def test_truth_has_full_marks(truth: Accuracy) -> None:
    assert all(value > 0.97 for value in asdict(truth).values()), truth


def _other(attribute: str) -> str:
    first, second = SCENE.objects
    choices = {
        "shape": ("cross", "square", "star"),
        "motion": ("up", "growing", "left"),
        "size": ("big", "small"),
    }[attribute]
    return next(value for value in choices if value not in (getattr(first, attribute), getattr(second, attribute)))


def _with_colours_swapped() -> Scene:
    first, second = SCENE.objects
    objects = (first.replace(colour=second.colour), second.replace(colour=first.colour))
    return SCENE.replace(objects=objects)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("component", "shown"),
    [
        ("shape", SCENE.replace(0, shape=_other("shape"))),
        ("motion", SCENE.replace(0, motion=_other("motion"))),
        ("size", SCENE.replace(0, size="small" if SCENE.objects[0].size == "big" else "big")),
        ("presence", SCENE.replace(order=(0,))),
        ("count", SCENE.replace(order=(0,))),
        ("camera", SCENE.replace(camera="still")),
        ("background", SCENE.replace(background="dots" if SCENE.background != "dots" else "waves")),
        ("binding", _with_colours_swapped()),
    ],
)
def test_what_is_shown_wrongly_is_seen(component: str, shown: Scene, truth: Accuracy) -> None:
    assert component in COMPONENTS
    found = score_scene(render(shown), caption(SCENE), iterations=0).accuracy
    assert getattr(found, component) < getattr(truth, component) - 0.3, found
    assert found.mean < truth.mean - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["blur", "noise", "flicker"])
def test_bad_drawing_of_the_right_thing_hardly_costs_accuracy(kind: str, truth: Accuracy) -> None:
    found = score_scene(DAMAGES[kind](render(SCENE), SCENE, 0.5), caption(SCENE), iterations=0).accuracy
    assert found.mean > truth.mean - 0.05, found


@pytest.mark.slow
def test_a_score_has_both_halves_and_the_scene_that_it_found() -> None:
    scored = score_scene(render(SCENE), caption(SCENE), iterations=30)
    assert scored.accuracy.mean > 0.97
    assert scored.quality.fit > 28  # from 18 where the search ends: its start knows nothing of light and tint
    assert {thing.colour for thing in scored.scene.objects} == {thing.colour for thing in SCENE.objects}
    assert scored.as_dict()["accuracy"] == scored.accuracy.mean


def test_what_is_no_clip_is_refused() -> None:
    with pytest.raises(UsageError, match=r"not a clip of the test bed; expected finite numbers of shape \(16, 3, 128"):
        score_scene(torch.zeros(4, 3, 128, 128), caption(SCENE))
    with pytest.raises(UsageError, match="not a clip of the test bed"):
        score_scene(torch.full((16, 3, 128, 128), float("nan")), caption(SCENE))
    with pytest.raises(UsageError, match="not a caption of scenes"):
        score_scene(torch.zeros(16, 3, 128, 128), "a cat")
