"""Clips of photographs in the public domain, panned and zoomed, with the motion they were made with."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def photograph(name: str) -> Tensor:
    """A picture that scikit-image carries (astronaut, chelsea, coffee, rocket), (channel, height, width) in [0, 1]."""
    data = pytest.importorskip("skimage.data", reason="scikit-image not installed: make test sets it up")
    return torch.from_numpy(np.array(getattr(data, name)())).movedim(-1, 0).float() / 255


def panned(name: str, places: list[tuple[float, float]], height: int = 200, width: int = 208) -> Tensor:
    """A window that shows the photograph moving to (right, down) pixels, one place per frame, parts of pixels too."""
    picture = photograph(name)
    top, left = ((length - part) / 2 for length, part in zip(picture.shape[1:], (height, width), strict=True))
    views = []
    for right, down in places:
        rows, columns = torch.arange(height) + top - down, torch.arange(width) + left - right
        views.append(_sampled(picture, rows[:, None].expand(-1, width), columns.expand(height, -1)))
    return torch.stack(views)


def pan(name: str, frames: int, right: float, down: float) -> Tensor:
    """The photograph moving by (right, down) pixels from frame to frame, around its middle."""
    middle = (frames - 1) / 2
    return panned(name, [((index - middle) * right, (index - middle) * down) for index in range(frames)])


def zoom(name: str, frames: int, factor: float, height: int = 200, width: int = 208) -> Tensor:
    """The photograph growing by a factor from frame to frame about the middle of the frame."""
    picture = photograph(name)
    row, column = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    views = []
    for index in range(frames):
        scale = factor**index
        rows, columns = row / scale + picture.shape[1] / 2, column / scale + picture.shape[2] / 2
        views.append(_sampled(picture, rows[:, None].expand(-1, width), columns.expand(height, -1)))
    return torch.stack(views)


def jpeg(frames: Tensor, quality: int) -> Tensor:
    """Every frame as a JPEG file of this quality, read again."""
    read = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray((frame * 255).round().byte().movedim(0, -1).numpy()).save(file, "JPEG", quality=quality)
        read.append(torch.from_numpy(np.array(Image.open(file))).movedim(-1, 0).float() / 255)
    return torch.stack(read)


def dropped(frames: Tensor) -> Tensor:
    """Every fourth frame lost, the frame before shown again in its place."""
    return torch.stack([frames[index - (index % 4 == 3)] for index in range(len(frames))])


def _sampled(picture: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    height, width = picture.shape[1:]
    grid = torch.stack((2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1), dim=-1)
    options = {"mode": "bicubic", "padding_mode": "reflection", "align_corners": True}
    return F.grid_sample(picture[None], grid[None].float(), **options)[0].clamp(0, 1)
