"""The six backgrounds: still pictures with structure, each periodic in a horizontal shift.

Colours are muted, so that every object stands out on every background.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Picture = Float[Tensor, "scene channel height width"]
SOFT = 0.008
"""Half width of a soft edge, in frame widths (1 pixel)."""


def _colour(r: float, g: float, b: float, like: Tensor) -> Tensor:
    return torch.tensor([r, g, b], device=like.device).view(3, 1, 1)


def _blend(low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    """`low` where the weight (scene, height, width) is 0, `high` where it is 1."""
    weight = weight[:, None]
    return low * (1 - weight) + high * weight


def _step(distance: Tensor) -> Tensor:
    """A soft step from 0 to 1 as a signed distance (frame widths) goes through 0."""
    return (distance / (2 * SOFT) + 0.5).clamp(0, 1)


def bricks(x: Tensor, y: Tensor, shift: Tensor) -> Picture:
    """Courses of bricks with light mortar."""
    row = torch.floor(y * 8)
    across = (x + 0.25 * shift + 0.125 * (row % 2)) % 0.25
    up = y % 0.125
    edge = torch.minimum(torch.minimum(across, 0.25 - across), torch.minimum(up, 0.125 - up).expand_as(across))
    tone = 1 + 0.08 * ((row % 3) - 1)
    brick = _colour(0.40, 0.25, 0.21, x) * tone[:, None]
    return _blend(_colour(0.60, 0.57, 0.53, x), brick, _step(edge - 0.012))


def waves(x: Tensor, y: Tensor, shift: Tensor) -> Picture:
    """Wavy horizontal bands."""
    height = y * 6 + 0.35 * torch.sin(2 * torch.pi * (2 * x + shift))
    return _blend(
        _colour(0.17, 0.31, 0.42, x), _colour(0.37, 0.52, 0.58, x), 0.5 + 0.5 * torch.sin(2 * torch.pi * height)
    )


def hills(x: Tensor, y: Tensor, shift: Tensor) -> Picture:
    """A pale sky over two ranges of hills."""
    turn = 2 * torch.pi * shift
    far = 0.50 + 0.08 * torch.sin(2 * torch.pi * x + turn) + 0.03 * torch.sin(6 * torch.pi * x + turn)
    near = 0.72 + 0.07 * torch.sin(4 * torch.pi * x + 2 * turn + 1)
    sky = _blend(_colour(0.48, 0.58, 0.66, x), _colour(0.66, 0.69, 0.68, x), (y * 1.5).clamp(max=1).expand(x.shape))
    ground = _blend(sky, _colour(0.40, 0.45, 0.36, x), _step(y - far))
    return _blend(ground, _colour(0.25, 0.31, 0.24, x), _step(y - near))


def checks(x: Tensor, y: Tensor, shift: Tensor) -> Picture:
    """A board of grey squares."""
    wave = torch.sin(torch.pi * 8 * (x + 0.25 * shift)) * torch.sin(torch.pi * 8 * y)
    return _blend(_colour(0.27, 0.27, 0.29, x), _colour(0.49, 0.49, 0.50, x), (wave * 5 + 0.5).clamp(0, 1))


def stripes(x: Tensor, y: Tensor, shift: Tensor) -> Picture:
    """Diagonal stripes."""
    wave = torch.sin(2 * torch.pi * (4 * (x + y) + shift))
    return _blend(_colour(0.40, 0.33, 0.40, x), _colour(0.60, 0.54, 0.57, x), (wave * 3 + 0.5).clamp(0, 1))


def starry_sky(x: Tensor, y: Tensor, shift: Tensor) -> Picture:
    """A dark sky with 24 stars."""
    sky = _blend(_colour(0.03, 0.04, 0.11, x), _colour(0.13, 0.12, 0.25, x), y.expand(x.shape))
    light = torch.zeros_like(x)
    for star in range(24):
        across, down = (star * 0.6180339887) % 1, (0.04 + star * 0.3819660113 * 1.7) % 1
        gap = (x - shift - across + 0.5) % 1 - 0.5
        spread = 0.010 + 0.006 * (0.5 + 0.5 * math.sin(star * 2.4))
        light = torch.maximum(light, torch.exp(-(gap**2 + (y - down) ** 2) / (2 * spread**2)))
    return _blend(sky, _colour(0.90, 0.90, 0.82, x), light)


PICTURES: dict[str, Callable[[Tensor, Tensor, Tensor], Picture]] = {
    "bricks": bricks,
    "waves": waves,
    "hills": hills,
    "checks": checks,
    "stripes": stripes,
    "starry sky": starry_sky,
}


def background_picture(name: str, shift: Float[Tensor, " scene"], resolution: int) -> Picture:
    """One kind of background at several shifts.

    Args:
        name: one of `BACKGROUNDS`.
        shift: where in its period each picture starts, in [0, 1).
        resolution: height and width in pixels.

    Returns:
        Pictures in [0, 1].

    Example:
        >>> background_picture("bricks", torch.tensor([0.0, 0.5]), 32).shape
        torch.Size([2, 3, 32, 32])
    """
    centre = (torch.arange(resolution, device=shift.device) + 0.5) / resolution
    x = centre[None, None, :].expand(len(shift), resolution, resolution)
    y = centre[None, :, None].expand(len(shift), resolution, resolution)
    return PICTURES[name](x, y, shift[:, None, None])
