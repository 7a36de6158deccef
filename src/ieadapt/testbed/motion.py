"""How objects move: eight motions around where they are in the middle of the clip."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FRAMES = 16
MOTIONS = ("left", "right", "up", "down", "growing", "shrinking", "spinning", "bouncing")

TRAVEL = 0.30
BOUNCE_HEIGHT = 0.26
BOUNCE_PERIOD = 8
GROWTH = 0.3
SPIN = math.radians(18.0)


class Trajectory(NamedTuple):
    """Where objects are in every frame; each field has the frame axis last."""

    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor


def follow(motion: Tensor, middle: Trajectory, phase: Tensor, frame: Tensor, pace: Tensor | float = 1.0) -> Trajectory:
    """Where objects are at given frames; all arguments broadcast.

    Left, right, up and down travel 0.30 of the frame at constant speed; growing goes from 0.7 to 1.3 times the radius
    and shrinking back; spinning turns 18 degrees a frame; bouncing rises and falls by 0.26 in 8 frames.

    Args:
        motion: index into `MOTIONS`.
        middle: position and radius in the middle of the clip, and the angle in the first frame.
        phase: where in its cycle a bouncing object starts.
        frame: which frames, 0 to 15.
        pace: distance, growth and turns as a multiple of the nominal ones.
    """
    progress = frame / (FRAMES - 1) - 0.5

    def is_a(name: str) -> Tensor:
        return (motion == MOTIONS.index(name)).to(progress.dtype) * pace

    height = (torch.pi * (frame / BOUNCE_PERIOD + phase)).sin().abs()
    return Trajectory(
        x=middle.x + TRAVEL * progress * (is_a("right") - is_a("left")),
        y=middle.y
        + TRAVEL * progress * (is_a("down") - is_a("up"))
        + BOUNCE_HEIGHT * (0.5 - height) * is_a("bouncing"),
        radius=middle.radius * (1 + 2 * GROWTH * progress * (is_a("growing") - is_a("shrinking"))),
        angle=middle.angle + SPIN * frame * is_a("spinning"),
    )
