"""Pictures of edits: the same frames of several clips, one row each, under one another."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ieadapt.errors import UsageError

_INK, _GAP, _LABEL = (40, 40, 40), 4, 18


def rows_of_frames(clips: Mapping[str, Float[Tensor, "frame channel height width"]], count: int = 8) -> bytes:
    r"""A PNG of evenly spaced frames of each clip, a row with its label for each, unchanged in size.

    Args:
        clips: label -> frames in [0, 1], all of the same shape.
        count: frames in a row, first and last among them.

    Raises:
        UsageError: there is no clip, or the shapes differ.

    Example:
        >>> rows_of_frames({"source": torch.zeros(16, 3, 8, 8), "edit": torch.ones(16, 3, 8, 8)})[:4]
        b'\x89PNG'
    """
    shapes = {tuple(frames.shape) for frames in clips.values()}
    if len(shapes) != 1:
        raise UsageError("rows of frames need clips of one shape", got=sorted(shapes) or "no clip")
    number, _, height, width = shapes.pop()
    chosen = np.unique(np.linspace(0, number - 1, min(count, number)).round().astype(int))
    board = Image.new("RGB", (len(chosen) * (width + _GAP) - _GAP, len(clips) * (height + _LABEL + _GAP)), "white")
    pen, font = ImageDraw.Draw(board), ImageFont.load_default(size=12)
    for row, (label, frames) in enumerate(clips.items()):
        top = row * (height + _LABEL + _GAP)
        pen.text((1, top + 1), label, fill=_INK, font=font)
        for column, frame in enumerate(frames[torch.from_numpy(chosen)]):
            board.paste(_picture(frame), (column * (width + _GAP), top + _LABEL))
    buffer = io.BytesIO()
    board.save(buffer, format="PNG")
    return buffer.getvalue()


def _picture(frame: Float[Tensor, "channel height width"]) -> Image.Image:
    pixels = rearrange(frame.detach().cpu().float().clamp(0, 1), "channel height width -> height width channel")
    return Image.fromarray((pixels * 255).round().to(torch.uint8).numpy())
