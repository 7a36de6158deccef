"""Objects go where their motion says."""

import math

import pytest
import torch

from ieadapt.testbed.rendering import BOUNCE_HEIGHT, Trajectory, follow
from ieadapt.testbed.scene import FRAMES, MOTIONS


def path_of(motion: str, pace: float = 1.0) -> Trajectory:
    middle = Trajectory(*torch.tensor([0.5, 0.5, 0.1, 0.0]))
    return follow(torch.tensor(MOTIONS.index(motion)), middle, torch.tensor(0.0), torch.arange(FRAMES), pace)


@pytest.mark.parametrize(
    ("motion", "x", "y", "radius", "angle"),
    [
        ("left", -0.3, 0, 0, 0),
        ("right", 0.3, 0, 0, 0),
        ("up", 0, -0.3, 0, 0),
        ("down", 0, 0.3, 0, 0),
        ("growing", 0, 0, 0.06, 0),
        ("shrinking", 0, 0, -0.06, 0),
        ("spinning", 0, 0, 0, 15 * math.radians(18)),
    ],
)
def test_first_to_last_frame(motion: str, x: float, y: float, radius: float, angle: float) -> None:
    changes = [float(part[-1] - part[0]) for part in (torch.broadcast_to(part, (FRAMES,)) for part in path_of(motion))]
    assert changes == pytest.approx([x, y, radius, angle], abs=1e-5)


def test_bouncing_turns_round_twice_in_a_period() -> None:
    height = path_of("bouncing").y
    assert (height.diff().sign().diff() != 0).sum() >= 3
    assert height.max() - height.min() == pytest.approx(BOUNCE_HEIGHT, abs=0.01)


def test_pace_is_a_multiple() -> None:
    assert torch.allclose(path_of("left", 2.0).x - 0.5, 2 * (path_of("left").x - 0.5))
