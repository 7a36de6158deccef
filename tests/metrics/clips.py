"""Clips whose content and motion are known, and ways to spoil them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_MARGIN = 32


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """A colour picture (channel, height, width) in [0, 1] with structure of 4 to 16 pixels."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, 3, height, width)
    for grain in (4, 8, 16):
        coarse = torch.rand(1, 3, height // grain + 2, width // grain + 2, generator=generator)
        picture += F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    low, high = torch.aminmax(picture[0])
    return (picture[0] - low) / (high - low)


def waves(height: int, width: int) -> Tensor:
    """A colour picture in [0, 1] in closed form, the same on every machine and version."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    channels = [
        0.5
        + 0.2 * torch.sin(0.35 * x + 0.11 * y + channel)
        + 0.2 * torch.sin(0.07 * x * (1 + 0.3 * channel) - 0.29 * y)
        + 0.1 * torch.sin(0.9 * x + 0.8 * y - channel)
        for channel in range(3)
    ]
    return torch.stack(channels).float()


def placed(height: int, width: int, places: Sequence[tuple[int, int]], seed: int = 0) -> Tensor:
    """A texture shown at whole-pixel places (right, down), one per frame; new parts come in at the borders."""
    big = texture(height + 2 * _MARGIN, width + 2 * _MARGIN, seed)
    views = [
        big[:, _MARGIN - down : _MARGIN - down + height, _MARGIN - right : _MARGIN - right + width]
        for right, down in places
    ]
    return torch.stack(views)


def pan(height: int, width: int, frames: int, right: int, down: int) -> Tensor:
    """A texture that moves by (right, down) pixels from frame to frame."""
    return placed(height, width, [(frame * right, frame * down) for frame in range(frames)])


def blur(frames: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of every frame."""
    reach = int(4 * sigma + 1)
    taps = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    taps = taps / taps.sum()
    across, down = (taps.view(shape).expand(3, -1, -1, -1) for shape in ((1, 1, 1, -1), (1, 1, -1, 1)))
    frames = F.conv2d(F.pad(frames, (reach, reach, 0, 0), mode="replicate"), across, groups=3)
    return F.conv2d(F.pad(frames, (0, 0, reach, reach), mode="replicate"), down, groups=3)


def noise(frames: Tensor, deviation: float) -> Tensor:
    """Independent noise on every pixel of every frame."""
    drawn = torch.randn(frames.shape, generator=torch.Generator().manual_seed(5))
    return (frames + deviation * drawn).clamp(0, 1)


def flashing(frames: Tensor, depth: float) -> Tensor:
    """Every second frame darker by this share."""
    return frames * torch.tensor([1.0, 1.0 - depth]).repeat(len(frames))[: len(frames), None, None, None]


def shuffled(frames: Tensor) -> Tensor:
    """The frames in another order in which no two neighbours stay neighbours (8 frames)."""
    return frames[[3, 0, 6, 2, 5, 1, 7, 4]]


def jittered_pan(height: int, width: int, reach: int) -> Tensor:
    """`pan(height, width, 8, 2, 1)` with every frame displaced by up to `reach` pixels."""
    signs = ((1, -1), (-1, 1), (1, 1), (-1, -1), (1, 0), (-1, 1), (0, -1), (-1, 1))
    return placed(height, width, [(2 * k + reach * a, k + reach * b) for k, (a, b) in enumerate(signs)])
