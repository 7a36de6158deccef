"""Judging motion: how far a track of centres, radii and angles is from the nearest ideal track of a named motion."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.testbed.scenes import BOUNCE_HEIGHT, BOUNCE_PERIOD, GROWTH, RESOLUTION, SPIN, TRAVEL

CENTRE_TOLERANCE = 4.5
"""Pixels off the ideal track (root mean square) at which the motion is half right."""
RADIUS_TOLERANCE = 0.07
"""Share of the mean radius, likewise."""
LEAST, MOST = 0.7, 1.4
"""How far, as a factor, speed, growth and height may be from the ideal."""
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
GROWING = {"growing": 1, "shrinking": -1}


class Track(NamedTuple):
    """Centre and radius in pixels and angle in radians, frame by frame; `symmetry` as in `outlines.SYMMETRY`."""

    x: Float[Tensor, " frame"]
    y: Float[Tensor, " frame"]
    radius: Float[Tensor, " frame"]
    angle: Float[Tensor, " frame"]
    symmetry: int


class MotionFit(NamedTuple):
    """How right the motion is, in [0, 1], and what is left of the track when the ideal one is taken off (pixels)."""

    score: float
    x: Float[Tensor, " frame"]
    y: Float[Tensor, " frame"]
    radius: Float[Tensor, " frame"]


def fit_motion(track: Track, motion: str) -> MotionFit:
    """Compare a track with the nearest track of a motion; `LEAST` to `MOST` times its pace is still right."""
    reach_x, reach_y = DIRECTIONS.get(motion, (0, 0))
    pixels = TRAVEL * RESOLUTION
    x = _line(track.x, reach_x * pixels)
    y = _bounce(track.y) if motion == "bouncing" else _line(track.y, reach_y * pixels)
    mean = track.radius.mean().clamp(min=1.0)
    relative = _line(track.radius / mean, GROWING.get(motion, 0) * 2 * GROWTH)
    centre = (x.square() + y.square()).mean() / CENTRE_TOLERANCE**2
    radius = relative.square().mean() / RADIUS_TOLERANCE**2
    error = float(centre + radius) + _turning(track, motion == "spinning")
    return MotionFit(1 / (1 + error**2), x, y, relative * mean)


def _line(values: Float[Tensor, " frame"], change: float) -> Float[Tensor, " frame"]:
    """What the best line leaves of values; its change over the clip is kept near the wanted one."""
    progress = torch.linspace(-0.5, 0.5, len(values))
    slope = float((values * progress).sum() / progress.square().sum())
    low, high = sorted((LEAST * change, MOST * change))
    return values - values.mean() - min(max(slope, low), high) * progress


def _bounce(y: Float[Tensor, " frame"]) -> Float[Tensor, " frame"]:
    """What is left after the best bounce, over starting points and periods."""
    frame = torch.arange(len(y), dtype=y.dtype)
    phase = torch.arange(32)[:, None, None] / 32
    period = BOUNCE_PERIOD * torch.tensor([0.85, 0.92, 1.0, 1.08, 1.15])[None, :, None]
    height = (math.pi * (frame / period + phase)).sin().abs().flatten(0, 1)
    centred = height - height.mean(1, keepdim=True)
    wanted = BOUNCE_HEIGHT * RESOLUTION
    rise = -(centred @ (y - y.mean())) / centred.square().sum(1)
    left = y - y.mean() + rise.clamp(LEAST * wanted, MOST * wanted)[:, None] * centred
    return left[left.square().sum(1).argmin()]


def _turning(track: Track, spins: bool) -> float:
    """The squared error of the angle: a spin must turn steadily, anything else must not."""
    if not track.symmetry:
        return 4.0 if spins else 0.0
    frame = torch.arange(len(track.angle), dtype=track.angle.dtype)
    rates = SPIN * torch.cat([torch.linspace(0.5, 1.5, 21), -torch.linspace(0.5, 1.5, 21), torch.zeros(1)])
    phase = track.symmetry * (track.angle[None] - rates[:, None] * frame[None])
    steady = torch.complex(phase.cos(), phase.sin()).mean(1).abs()
    turning, still = float(steady[:-1].max()), float(steady[-1])
    if spins:
        return -2 * math.log(max(turning, 1e-3))
    return 4 * max(0.0, turning - still) ** 2
