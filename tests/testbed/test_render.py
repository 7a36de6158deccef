import math

import pytest
import torch

from ieadapt.testbed.outlines import area
from ieadapt.testbed.render import PALETTE, render, render_batch, render_frames, render_mask
from ieadapt.testbed.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, SceneTensors, sample_scenes

SCENE = Scene("big", "red", "star", "right", "bricks", position=(0.5, 0.5), angle=0.1, shift=0.2)


def test_frames_are_frames() -> None:
    frames = render(SCENE)
    assert frames.shape == (16, 3, 128, 128)
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_batch_equals_one_by_one() -> None:
    scenes = sample_scenes(6, 2)
    batch = render_batch(SceneTensors.stack(scenes))
    for row, scene in zip(batch, scenes, strict=True):
        assert torch.allclose(row, render(scene), atol=1e-5)


def test_single_frames_equal_those_of_the_clip() -> None:
    scenes = SceneTensors.stack(sample_scenes(4, 2))
    chosen = torch.tensor([0, 5, 10, 15])
    assert torch.allclose(render_frames(scenes, chosen), render_batch(scenes)[torch.arange(4), chosen], atol=1e-5)


def test_perfect_edit_changes_only_what_it_names() -> None:
    mask = render_mask(SCENE)[:, None]
    recoloured, moved = render(SCENE.replace(colour="blue")), render(SCENE.replace(background="waves"))
    assert torch.equal(render_mask(SCENE.replace(colour="blue"))[:, None], mask)
    assert ((recoloured - render(SCENE)).abs() * (mask == 0)).max() == 0
    assert ((moved - render(SCENE)).abs() * (mask == 1)).max() < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["big", "small"])
def test_mask_has_the_area_of_the_shape(shape: str, size: str) -> None:
    scene = Scene(size, "red", shape, "left", "hills")
    wanted = area(shape) * (scene.trajectory().radius * 128) ** 2
    assert torch.allclose(render_mask(scene).sum((1, 2)), wanted, rtol=0.03)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_colour_stands_out_on_every_background(colour: str, background: str) -> None:
    scene = Scene("big", colour, "square", "left", background)
    mask, frames = render_mask(scene), render(scene)
    inside = frames.movedim(1, -1)[mask == 1]
    assert (inside - torch.tensor(PALETTE[colour])).norm(dim=-1).median() < 0.08
    outside = frames.movedim(1, -1)[mask == 0]
    assert ((outside - inside.mean(0)).norm(dim=-1) > 0.25).float().mean() > 0.97


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_have_structure_and_move_with_the_shift(background: str) -> None:
    still = render(Scene("small", "red", "ball", "left", background))[0]
    shifted = render(Scene("small", "red", "ball", "left", background, shift=0.37))[0]
    assert still.std() > 0.05
    assert (still - shifted).abs().mean() > 0.005


def test_edges_are_soft() -> None:
    mask = render_mask(Scene("big", "red", "ball", "left", "bricks", swell=0.0))
    soft = ((mask > 0.01) & (mask < 0.99)).sum((1, 2)).float()
    around = 2 * math.pi * 0.22 * 128
    assert (soft > 0.8 * around).all()
    assert (soft < 3 * around).all()
