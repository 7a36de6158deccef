import itertools

import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.testbed.scenes import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    FRAMES,
    MOTIONS,
    REACH,
    ROUND,
    SHAPES,
    SIZES,
    Scene,
    SceneTensors,
    held_out,
    sample_scenes,
    trajectories,
)


def key(scene: Scene) -> tuple[str, str, str]:
    return scene.colour, scene.shape, scene.background


def test_enough_of_everything() -> None:
    assert len(SIZES) >= 2
    assert len(COLOURS) >= 8
    assert len(SHAPES) >= 6
    assert len(MOTIONS) >= 8
    assert len(BACKGROUNDS) >= 6


def test_replace_changes_one_thing() -> None:
    scene = Scene("big", "red", "star", "left", "bricks", position=(0.4, 0.6), angle=0.1, shift=0.3)
    edited = scene.replace(colour="blue")
    assert edited.colour == "blue"
    assert edited.replace(colour="red") == scene


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_unknown_attribute_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"unknown {name}.*got nothing"):
        Scene("big", "red", "star", "left", "bricks").replace(**{name: "nothing"})


@pytest.mark.parametrize("shape", ROUND)
def test_round_shapes_do_not_spin(shape: str) -> None:
    with pytest.raises(UsageError, match="cannot be seen to spin"):
        Scene("big", "red", shape, "spinning", "bricks")


def test_sampling_is_repeatable_and_seeded() -> None:
    assert sample_scenes(20, 3) == sample_scenes(20, 3)
    assert sample_scenes(20, 3) != sample_scenes(20, 4)
    assert len(sample_scenes(20, 3)) == 20


def test_splits_share_no_combination() -> None:
    train, heldout = sample_scenes(3000, 0, "train"), sample_scenes(600, 0, "heldout")
    assert not {key(scene) for scene in train} & {key(scene) for scene in heldout}
    with pytest.raises(UsageError, match="unknown split"):
        sample_scenes(1, 0, "test")


def test_one_combination_in_twelve_is_held_out_and_no_pair_of_values_is() -> None:
    grid = torch.tensor(list(itertools.product(range(len(COLOURS)), range(len(SHAPES)), range(len(BACKGROUNDS)))))
    out = held_out(*grid.unbind(1))
    assert out.float().mean() == pytest.approx(1 / 12, abs=0.01)
    seen = grid[~out]
    for one, other in itertools.combinations(range(3), 2):
        pairs = {tuple(row) for row in seen[:, [one, other]].tolist()}
        assert len(pairs) == len({tuple(row) for row in grid[:, [one, other]].tolist()})


def test_every_value_is_sampled() -> None:
    scenes = sample_scenes(1000, 5)
    for name, known in ATTRIBUTES.items():
        assert {getattr(scene, name) for scene in scenes} == set(known)


def test_tensors_and_back() -> None:
    scenes = sample_scenes(30, 1, "all")
    back = SceneTensors.stack(scenes).scenes()
    assert [scene.replace(position=(0.0, 0.0)) for scene in back] == [
        scene.replace(position=(0.0, 0.0)) for scene in scenes
    ]


@pytest.mark.parametrize(
    ("motion", "x", "y", "radius"),
    [
        ("left", -1, 0, 0),
        ("right", 1, 0, 0),
        ("up", 0, -1, 0),
        ("down", 0, 1, 0),
        ("growing", 0, 0, 1),
        ("shrinking", 0, 0, -1),
        ("spinning", 0, 0, 0),
    ],
)
def test_trajectories_go_where_they_say(motion: str, x: int, y: int, radius: int) -> None:
    path = Scene("small", "red", "star", motion, "bricks").trajectory()
    assert path.x.shape == (FRAMES,)
    assert torch.sign(path.x[-1] - path.x[0]).item() == x
    assert torch.sign(path.y[-1] - path.y[0]).item() == y
    assert torch.sign(path.radius[-1] - path.radius[0]).item() == radius
    assert bool(path.angle[-1] != path.angle[0]) == (motion == "spinning")


def test_bouncing_turns_round_twice_in_a_period() -> None:
    height = Scene("small", "red", "star", "bouncing", "bricks").trajectory().y
    assert (height.diff().sign().diff() != 0).sum() >= 3
    assert height.max() - height.min() == pytest.approx(0.26, abs=0.01)


def test_objects_stay_in_the_frame() -> None:
    path = trajectories(SceneTensors.stack(sample_scenes(500, 8, "all")))
    for centre in (path.x, path.y):
        assert (centre - REACH * path.radius).min() > -1e-4
        assert (centre + REACH * path.radius).max() < 1 + 1e-4
