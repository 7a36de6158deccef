"""RIFE, which makes the frame halfway between two."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ieadapt.metrics.flow import Pictures, warp

Picture = Float[Tensor, "channel height width"]
_MULTIPLE = 32
# channels and the part of the resolution of the four stages, coarse to fine
_STAGES = ((192, 8), (128, 4), (96, 2), (64, 1))


@torch.no_grad()
def middle_frame(network: nn.Module, before: Picture, after: Picture) -> Picture:
    """The frame halfway between two, in [0, 1]; margins up to a multiple of 32 pixels repeat the border."""
    height, width = before.shape[1:]
    margin = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
    pair = F.pad(torch.stack((before, after)), margin, mode="replicate")
    return network(pair[:1], pair[1:])[0, :, :height, :width].clamp(0, 1)


class IntermediateFlow(nn.Module):
    """The middle frame of two, by flows refined from coarse to fine; module names as in the published weights."""

    def __init__(self) -> None:
        super().__init__()
        for index, (channels, _) in enumerate(_STAGES):
            self.add_module(f"block{index}", _Stage(7 if index == 0 else 12, channels))

    def forward(self, before: Pictures, after: Pictures) -> Pictures:
        """Pictures in [0, 1] whose sides are multiples of 32."""
        halfway = torch.full_like(before[:, :1], 0.5)
        flow, mask = self.get_submodule("block0")(torch.cat((before, after, halfway), 1), None, _STAGES[0][1])
        for index, (_, part) in enumerate(_STAGES[1:], start=1):
            first, second = warp(before, flow[:, :2]), warp(after, flow[:, 2:])
            seen = torch.cat((first, second, halfway, mask), 1)
            finer, change = self.get_submodule(f"block{index}")(seen, flow, part)
            flow, mask = flow + finer, mask + change
        first, second = warp(before, flow[:, :2]), warp(after, flow[:, 2:])
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
        output = _scaled(self.lastconv(self.convblock(self.conv0(signal))), part)
        return output[:, :4] * part, output[:, 4:5]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, signal: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(signal) * self.beta + signal, 0.2)


def _scaled(signal: Tensor, factor: int | float) -> Tensor:
    return F.interpolate(signal, scale_factor=float(factor), mode="bilinear")


def _halving(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, channels, 3, 2, 1), nn.LeakyReLU(0.2))
