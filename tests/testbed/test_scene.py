"""Scenes, captions, pictures and what is kept from training."""

import dataclasses
import itertools

import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.testbed import (
    BACKGROUNDS,
    CAMERAS,
    SHAPES,
    Scene,
    SceneObject,
    caption,
    parse_caption,
    render,
    render_masks,
    sample_scenes,
)
from ieadapt.testbed.captions import LONGEST, captions
from ieadapt.testbed.outlines import OUTLINES, area
from ieadapt.testbed.patterns import INKS, PATTERNS, paint
from ieadapt.testbed.rendering import EDGE, PALETTE, PAN, ZOOM, all_frames, masks_batch, paths, render_batch
from ieadapt.testbed.sampling import held_out, sample_batch
from ieadapt.testbed.scene import VARIATION, SceneBatch

STAR = SceneObject("big", "red", "star", "left", (0.55, 0.5))
RING = SceneObject("small", "blue", "ring", "growing", (0.45, 0.5))
SCENE = Scene((STAR, RING), "bricks", "right")


def drawn(n: int, split: str = "all", seed: int = 0) -> SceneBatch:
    return sample_batch(n, torch.Generator().manual_seed(seed), split)


def test_a_batch_and_its_scenes_are_the_same() -> None:
    batch = drawn(200)
    again = SceneBatch.stack(batch.scenes())
    present = batch.present
    assert torch.equal(batch.count, again.count)
    assert torch.equal(batch.kinds[present], again.kinds[present])
    assert torch.equal(batch.numbers[present], again.numbers[present])
    assert torch.equal(batch.setting, again.setting)
    assert torch.equal(batch.variation, again.variation)


def test_the_same_seed_gives_the_same_scenes() -> None:
    assert sample_scenes(5, 3) == sample_scenes(5, 3)
    assert sample_scenes(5, 3) != sample_scenes(5, 4)
    with pytest.raises(UsageError, match=r"unknown split.*train, heldout, all"):
        sample_scenes(1, 0, "test")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Scene((), "bricks"), "one to three objects"),
        (lambda: Scene((STAR, STAR), "bricks"), "different colours"),
        (lambda: Scene((STAR,), "grass"), r"unknown background.*bricks.*got grass"),
        (lambda: Scene((STAR,), "bricks", "sideways"), "unknown camera"),
        (lambda: Scene((STAR,), "bricks", variation=(0.5,)), "variation has another length"),
        (lambda: STAR.replace(colour="pink"), "unknown colour"),
        (lambda: RING.replace(motion="spinning"), "cannot be seen to spin"),
    ],
)
def test_what_cannot_be_is_refused(make: object, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()


def test_every_caption_is_read_back() -> None:
    scenes = sample_scenes(300, 1, "all")
    texts = [caption(scene) for scene in scenes]
    assert texts == captions(SceneBatch.stack(scenes))
    for scene, text in zip(scenes, texts, strict=True):
        read = parse_caption(text)
        assert caption(read) == text
        assert (read.background, read.camera) == (scene.background, scene.camera)
        for one, other in zip(read.objects, scene.objects, strict=True):
            names = ("size", "colour", "shape", "motion")
            assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    assert max(len(text.split()) for text in texts) + 2 <= LONGEST


@pytest.mark.parametrize("text", ["", "a dog", "a big red star moving left", "a big red star moving left over grass"])
def test_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"not a caption of scenes.*write for example"):
        parse_caption(text)


def test_held_out_combinations_are_kept_from_training_and_are_many() -> None:
    assert not held_out(drawn(2000, "train")).any()
    unseen = drawn(3000, "heldout")
    assert held_out(unseen).all()
    assert 0.06 < held_out(drawn(4000)).float().mean() < 0.11
    assert len(set(captions(unseen))) > 2900


def test_held_out_does_not_look_at_depth() -> None:
    scene = sample_scenes(1, 5, "heldout")[0]
    for order in itertools.permutations(range(len(scene.objects))):
        assert held_out(SceneBatch.stack([scene.replace(order=order)])).all()


def test_objects_are_in_view_and_most_of_them_cross() -> None:
    batch = drawn(400)
    path = paths(batch, all_frames(batch))
    inside = (path.x - 0.5).abs().amax(-1) < 0.5, (path.y - 0.5).abs().amax(-1) < 0.5
    assert (inside[0] & inside[1])[batch.present].all()
    crossing = batch[batch.count == 2][:60]
    shown = masks_batch(crossing, resolution=32)
    whole = masks_batch(SceneBatch.stack([scene.replace(order=(1,)) for scene in crossing.scenes()]), resolution=32)
    hidden = whole[:, 0].sum((2, 3)) - shown[:, 1].sum((2, 3))
    assert (hidden.amax(1) > 1).float().mean() > 0.75
    assert (shown[:, 1].sum((1, 2, 3)) > 0.3 * whole[:, 0].sum((1, 2, 3))).float().mean() > 0.95


def test_one_scene_is_rendered_as_in_a_batch() -> None:
    batch = drawn(6)
    clips = render_batch(batch)
    assert clips.shape == (6, 16, 3, 128, 128)
    assert clips.min() >= 0
    assert clips.max() <= 1
    for clip, scene in zip(clips, batch.scenes(), strict=True):
        assert torch.allclose(clip, render(scene), atol=1e-4)


def test_chosen_frames_are_those_of_the_clip() -> None:
    batch = drawn(4)
    frame = torch.tensor([[0, 15], [3, 3], [7, 1], [9, 12]])
    clips = render_batch(batch)
    assert torch.allclose(render_batch(batch, frame), clips[torch.arange(4)[:, None], frame], atol=1e-4)


def slow_masks(scene: Scene, frame: int, size: int = 48) -> torch.Tensor:
    """Which object each pixel's middle shows, from the outlines alone, pixel by pixel; -1 where it is background."""
    batch = SceneBatch.stack([scene])
    path = paths(batch, torch.tensor([[frame]]))
    shown = torch.full((size, size), -1)
    for row, column in itertools.product(range(size), range(size)):
        for slot, thing in enumerate(scene.objects):
            x, y, radius, angle = (float(value[0, slot, 0]) for value in path)
            dx, dy = ((column + 0.5) / size - x) / radius, ((row + 0.5) / size - y) / radius
            turn = torch.tensor(angle)
            across, down = turn.cos() * dx - turn.sin() * dy, turn.sin() * dx + turn.cos() * dy
            if float(OUTLINES[thing.shape](across, down)) < 0:
                shown[row, column] = slot
                break
    return shown


def test_masks_are_those_of_a_slow_reference() -> None:
    scene = sample_scenes(40, 2, "all")[3].replace(order=(0, 1))
    masks = masks_batch(SceneBatch.stack([scene]), torch.tensor([[5]]), resolution=48)[0, :, 0]
    shown = slow_masks(scene, 5)
    for slot in range(2):
        assert ((masks[slot] > 0.5) == (shown == slot)).float().mean() > 0.995
    assert masks[2].sum() == 0


def test_a_mask_has_the_area_of_its_shape() -> None:
    for shape in SHAPES:
        scene = Scene((STAR.replace(shape=shape, motion="left", position=(0.5, 0.5)),), "hills")
        path = paths(SceneBatch.stack([scene]), torch.arange(16)[None])
        wanted = area(shape) * (path.radius[0, 0] * 128) ** 2
        assert torch.allclose(render_masks(scene)[0].sum((1, 2)), wanted, rtol=0.03)


def test_perfect_edits_change_only_what_they_name() -> None:
    masks, clip = render_masks(SCENE), render(SCENE)
    front, back = masks[:, :, None]
    recoloured = render(SCENE.replace(1, colour="green"))
    assert torch.equal(render_masks(SCENE.replace(1, colour="green")), masks)
    assert ((recoloured - clip).abs() * (back == 0)).max() == 0
    elsewhere = render(SCENE.replace(background="waves"))
    assert ((elsewhere - clip).abs() * ((front + back) > 1 - 1e-6)).max() < 1e-5
    swapped = SCENE.replace(order=(1, 0))
    assert [thing.colour for thing in swapped.objects] == ["blue", "red"]
    assert ((render(swapped) - clip).abs().amax(2) > 0.1).float().mean() > 0.001
    assert SCENE.replace(order=(0,)).objects == (STAR,)
    assert SCENE.replace(0, motion="up").objects[0].position == STAR.position
    assert SCENE.replace(camera="in").variation == SCENE.variation


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_moves_objects_and_background_alike(camera: str) -> None:
    still = Scene((STAR.replace(motion="spinning"),), "checks", camera)
    path = paths(SceneBatch.stack([still]), torch.tensor([[0, 15]]))
    dx, dy = (float(value[0, 0, 1] - value[0, 0, 0]) for value in (path.x, path.y))
    growth = float((path.radius[0, 0, 1] / path.radius[0, 0, 0]).log())
    sideways = {"left": PAN, "right": -PAN}.get(camera, 0.0)
    upright = {"up": PAN, "down": -PAN}.get(camera, 0.0)
    zoom = {"in": ZOOM, "out": -ZOOM}.get(camera, 0.0)
    assert growth == pytest.approx(zoom, abs=1e-4)
    if not zoom:
        assert (dx, dy) == (pytest.approx(sideways, abs=1e-4), pytest.approx(upright, abs=1e-4))
    changed = (render(still)[6] - render(still)[0]).abs().amax(0)
    assert (changed[:12, :12].mean() > 0.01) == (camera != "still")


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_patterns_have_structure_and_say_which_ink_is_where(name: str) -> None:
    steps = torch.arange(96) / 96
    x, y = steps[None].expand(96, 96), steps[:, None].expand(96, 96)
    layers = PATTERNS[name](x, y)
    assert len(layers) == len(INKS[name]) - 1
    assert all(layer.min() >= 0 and layer.max() <= 1 for layer in layers)
    assert paint(name, x, y).std((0, 1)).max() > 0.04
    slow = torch.tensor(INKS[name][0]).expand(96, 96, 3)
    for layer, ink in zip(layers, INKS[name][1:], strict=True):
        slow = slow * (1 - layer[..., None]) + torch.tensor(ink) * layer[..., None]
    assert torch.allclose(paint(name, x, y), slow, atol=1e-6)


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_objects_stand_out_whatever_the_variation(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    for colour in PALETTE:
        variation = tuple(torch.rand(VARIATION, generator=generator).tolist())
        scene = Scene((STAR.replace(colour=colour, shape="square", motion="up"),), name, variation=variation)
        mask, clip = render_masks(scene)[0, 8], render(scene)[8].movedim(0, -1)
        inside = clip[mask > 0.99].mean(0)
        assert ((clip[mask == 0] - inside).norm(dim=-1) > 0.15).float().mean() > 0.9


def test_light_changes_over_the_clip_and_is_part_of_the_variation() -> None:
    values = list(SCENE.variation)
    values[1:3] = [0.0, 1.0]
    clip = render(dataclasses.replace(SCENE, variation=tuple(values)))
    means = clip.mean((1, 2, 3))
    assert means[15] > 1.25 * means[0]


def test_edges_are_soft() -> None:
    mask = render_masks(Scene((STAR.replace(shape="ball", swell=0.0),), "hills"))[0]
    soft = ((mask > 0.01) & (mask < 0.99)).sum((1, 2)).float()
    around = 2 * torch.pi * 0.185 * 128
    assert (soft > 0.8 * around).all()
    assert (soft < 2 * EDGE * around).all()
