"""Optical flow: where each pixel goes from one frame to the next (OpenCV's DIS), and pictures sampled along it."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ieadapt.metrics.metric import GREY_LEVELS, Frames, luma

Pictures = Float[Tensor, "pair channel height width"]
Flow = Float[Tensor, "pair vector height width"]
_WORKING_SIDE = 128


def optical_flow(frames: Frames) -> Flow:
    """Displacement of every pixel of a frame until the next frame, by dense inverse search, preset medium.

    Frames whose shorter side is under 128 pixels are enlarged by a whole factor first, as DIS needs. On those,
    displacements of more than about a tenth of the shorter side are not found reliably.

    Args:
        frames: a clip in [0, 1]; brightness is rounded to 8 bits.

    Returns:
        (frame - 1, 2, height, width), in pixels: right, then down.

    Source: Kroeger et al., Fast optical flow using dense inverse search, ECCV 2016.

    Example:
        >>> optical_flow(torch.zeros(3, 3, 16, 24)).shape
        torch.Size([2, 2, 16, 24])
    """
    import cv2

    height, width = frames.shape[-2:]
    factor = max(1, math.ceil(_WORKING_SIDE / min(height, width)))
    grey = (luma(frames) * GREY_LEVELS).round().clamp(0, GREY_LEVELS).to(torch.uint8).numpy()
    large = (width * factor, height * factor)
    pictures = [cv2.resize(picture, large, interpolation=cv2.INTER_LINEAR) for picture in grey]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # no flow carries over from pair to pair: a value depends on its two frames alone
    fields = [search.calc(first, second, None) for first, second in pairwise(pictures)]  # type: ignore[call-overload]
    small = [cv2.resize(field, (width, height), interpolation=cv2.INTER_AREA) / factor for field in fields]
    return torch.from_numpy(np.stack(small)).float().movedim(-1, 1)


def flow_targets(flow: Flow) -> tuple[Float[Tensor, "pair height width"], Float[Tensor, "pair height width"]]:
    """The column and the row in the next frame to which the flow of each pixel points."""
    height, width = flow.shape[-2:]
    column = torch.arange(width, dtype=flow.dtype) + flow[:, 0]
    return column, torch.arange(height, dtype=flow.dtype)[:, None] + flow[:, 1]


def warp(pictures: Pictures, flow: Flow) -> Pictures:
    """Pictures sampled where the flow points, in pixels: right, then down; beyond the border as at the border."""
    height, width = pictures.shape[-2:]
    column, row = flow_targets(flow)
    grid = torch.stack((2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1), dim=-1)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=True)
