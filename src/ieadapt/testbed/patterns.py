"""The backgrounds of `scenes`: endless patterns of two or three inks, and a slow tint over them.

A pattern says how much of each ink a point of the plane shows. Inks are muted, so that every object stands out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Points = Float[Tensor, "*batch"]
Layers = tuple[Points, ...]
"""How much each further ink covers what lies below it, in [0, 1]; the first ink covers everything."""

SOFT = 0.008
"""Half width of a soft edge, in frame widths (1 pixel)."""
FIELD_STRENGTH = 0.05
FIELD_CYCLES = (0.6, 0.9, 1.3)
"""Cycles of the three waves of tint in a frame width."""
STARS = 24


def _step(distance: Points) -> Points:
    """A soft step from 0 to 1 as a signed distance (frame widths) goes through 0."""
    return (distance / (2 * SOFT) + 0.5).clamp(0, 1)


def bricks(x: Points, y: Points) -> Layers:
    """Courses of bricks of two tones in light mortar."""
    row = torch.floor(y * 8)
    along = x * 4 + 0.5 * (row % 2)
    across, up = (along % 1) / 4, y % 0.125
    edge = torch.minimum(torch.minimum(across, 0.25 - across), torch.minimum(up, 0.125 - up))
    dark = (((torch.floor(along) + 2 * row) % 5) < 2).to(x.dtype)
    brick = _step(edge - 0.012)
    return brick, brick * dark


def waves(x: Points, y: Points) -> Layers:
    """Wavy horizontal bands with foam on their crests."""
    height = y * 5 + 0.35 * torch.sin(4 * torch.pi * x)
    return 0.5 + 0.5 * torch.sin(2 * torch.pi * height), _step(0.02 - ((height % 1) / 5 - 0.05).abs())


def hills(x: Points, y: Points) -> Layers:
    """Two ranges of hills before the sky."""
    far = 0.48 + 0.08 * torch.sin(2 * torch.pi * x) + 0.03 * torch.sin(6 * torch.pi * x)
    near = 0.70 + 0.07 * torch.sin(4 * torch.pi * x + 1)
    return _step(y - far), _step(y - near)


def checks(x: Points, y: Points) -> Layers:
    """A board of squares."""
    return ((torch.sin(8 * torch.pi * x) * torch.sin(8 * torch.pi * y) * 5 + 0.5).clamp(0, 1),)


def stripes(x: Points, y: Points) -> Layers:
    """Diagonal stripes, broad and narrow."""
    along = (x + y) * 3.5 % 1
    return _step(0.07 - (along - 0.3).abs() / 5), _step(0.018 - (along - 0.8).abs() / 5)


def dots(x: Points, y: Points) -> Layers:
    """Dots in a staggered grid."""
    row = torch.floor(y * 7)
    across, up = (x * 7 + 0.5 * (row % 2)) % 1 - 0.5, (y * 7) % 1 - 0.5
    return (_step(0.045 - torch.hypot(across, up) / 7),)


def honeycomb(x: Points, y: Points) -> Layers:
    """Hexagonal cells in dark walls."""
    root = math.sqrt(3)
    x, y = x * 6, y * 6
    first = x % 1 - 0.5, y % root - root / 2
    second = (x + 0.5) % 1 - 0.5, (y + root / 2) % root - root / 2
    nearer = torch.hypot(*first) < torch.hypot(*second)
    across, up = (torch.where(nearer, a, b).abs() for a, b in zip(first, second, strict=True))
    return (_step((0.5 - torch.maximum(across, across / 2 + up * root / 2)) / 6 - 0.012),)


def starry_sky(x: Points, y: Points) -> Layers:
    """A dark sky with 24 stars of several sizes in every frame."""
    light = torch.zeros_like(x)
    for star in range(STARS):
        # squares, since multiples alone would line the stars up
        across = (x - star * 0.6180339887 + 0.5) % 1 - 0.5
        up = (y - star**2 * 0.7548776662 + 0.5) % 1 - 0.5
        spread = 0.010 + 0.006 * (0.5 + 0.5 * math.sin(star * 2.4))
        light = torch.maximum(light, torch.exp(-(across**2 + up**2) / (2 * spread**2)))
    return (light,)


PATTERNS: dict[str, Callable[[Points, Points], Layers]] = {
    "bricks": bricks,
    "waves": waves,
    "hills": hills,
    "checks": checks,
    "stripes": stripes,
    "dots": dots,
    "honeycomb": honeycomb,
    "starry sky": starry_sky,
}

INKS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "bricks": ((0.58, 0.55, 0.50), (0.42, 0.27, 0.22), (0.33, 0.21, 0.19)),
    "waves": ((0.17, 0.31, 0.42), (0.33, 0.47, 0.54), (0.55, 0.62, 0.62)),
    "hills": ((0.52, 0.59, 0.64), (0.40, 0.45, 0.36), (0.25, 0.31, 0.24)),
    "checks": ((0.27, 0.27, 0.29), (0.49, 0.49, 0.50)),
    "stripes": ((0.57, 0.51, 0.54), (0.38, 0.31, 0.38), (0.30, 0.26, 0.33)),
    "dots": ((0.32, 0.36, 0.33), (0.55, 0.54, 0.44)),
    "honeycomb": ((0.26, 0.20, 0.12), (0.52, 0.44, 0.28)),
    "starry sky": ((0.09, 0.09, 0.17), (0.80, 0.80, 0.74)),
}


def paint(name: str, x: Points, y: Points) -> Float[Tensor, "*batch channel"]:
    """The colours of a pattern at points of the plane, in [0, 1], before tint and light.

    Example:
        >>> paint("checks", torch.tensor([0.0625]), torch.tensor([0.0625]))
        tensor([[0.4900, 0.4900, 0.5000]])
    """
    inks = torch.tensor(INKS[name], device=x.device)
    colours = inks[0].expand(*x.shape, 3)
    for ink, cover in zip(inks[1:], PATTERNS[name](x, y), strict=True):
        colours = torch.lerp(colours, ink.expand_as(colours), cover[..., None])
    return colours


def tint(
    x: Float[Tensor, scene * rest], y: Float[Tensor, scene * rest], field: Float[Tensor, "scene 9"]
) -> Float[Tensor, "scene *rest channel"]:
    """What three slow waves of colour add to a background.

    Args:
        x: points of the plane.
        y: likewise.
        field: direction, phase and hue of each wave, in [0, 1).
    """
    shape = (-1, *(1,) * (x.dim() - 1))
    total = torch.zeros(*x.shape, 3, device=x.device)
    for wave, cycles in enumerate(FIELD_CYCLES):
        direction, phase, hue = (2 * torch.pi * field[:, 3 * wave + part] for part in range(3))
        along = x * direction.cos().view(shape) + y * direction.sin().view(shape)
        height = torch.sin(2 * torch.pi * cycles * along + phase.view(shape))
        colour = torch.stack([(hue + 2 * torch.pi * channel / 3).cos() for channel in range(3)], -1)
        total = total + height[..., None] * (FIELD_STRENGTH * (0.5 + colour)).view(*shape, 3)
    return total
