"""RAFT's learned parts: picture encoders and the update of a flow; module names as in the published weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Pictures = Float[Tensor, "picture channel height width"]
CoarseFlow = Float[Tensor, "pair vector row column"]


@dataclass(frozen=True)
class RaftSize:
    """The two published sizes of RAFT.

    Attributes:
        block: of the encoders.
        widths: channels of the stem and of the three stages of an encoder.
        features: channels that are correlated.
        context_norm: normalisation in the encoder of the context.
        hidden: channels of the state that is updated.
        context: channels that tell the update what the first picture shows.
        radius: of the window of correlations that is looked up.
        correlation: widths of the layers that read the correlations.
        flow: widths of the layers that read the flow.
        motion: channels in which both are summed up, without the flow itself.
        gates: suffix in the names of the weights -> kernel of one gated update.
        head: channels of the layer before the change of the flow.
        upsampled: channels of the layer before the mask of the convex upsampling; 0 where it is bilinear.
    """

    block: Callable[[int, int, int, Callable[[int], nn.Module]], nn.Module]
    widths: tuple[int, int, int, int]
    features: int
    context_norm: Callable[[int], nn.Module]
    hidden: int
    context: int
    radius: int
    correlation: tuple[int, ...]
    flow: tuple[int, int]
    motion: int
    gates: tuple[tuple[str, tuple[int, int]], ...]
    head: int
    upsampled: int


class Encoder(nn.Module):
    """Pictures to features at an eighth of their size."""

    def __init__(self, size: RaftSize, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        stem, *stages = size.widths
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3)
        self.norm1 = norm(stem)
        before = stem
        for index, stage in enumerate(stages, start=1):
            blocks = size.block(before, stage, 1 if index == 1 else 2, norm), size.block(stage, stage, 1, norm)
            self.add_module(f"layer{index}", nn.Sequential(*blocks))
            before = stage
        self.conv2 = nn.Conv2d(before, width, 1)

    def forward(self, pictures: Pictures) -> Float[Tensor, "picture feature row column"]:
        """Pictures in [-1, 1] whose sides are multiples of 8."""
        signal = F.relu(self.norm1(self.conv1(pictures)))
        for index in range(1, 4):
            signal = self.get_submodule(f"layer{index}")(signal)
        return self.conv2(signal)


class _Residual(nn.Module):
    """Two convolutions of 3x3 beside the signal itself."""

    def __init__(self, channels: int, width: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 3, stride, 1), norm(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1), norm(width)
        self.downsample = _halved(channels, width, stride, norm)

    def forward(self, signal: Tensor) -> Tensor:
        found = F.relu(self.norm1(self.conv1(signal)))
        return F.relu(self.downsample(signal) + F.relu(self.norm2(self.conv2(found))))


class _Bottleneck(nn.Module):
    """A convolution of 3x3 on a quarter of the channels, beside the signal itself."""

    def __init__(self, channels: int, width: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        narrow = width // 4
        self.conv1, self.norm1 = nn.Conv2d(channels, narrow, 1), norm(narrow)
        self.conv2, self.norm2 = nn.Conv2d(narrow, narrow, 3, stride, 1), norm(narrow)
        self.conv3, self.norm3 = nn.Conv2d(narrow, width, 1), norm(width)
        self.downsample = _halved(channels, width, stride, norm)

    def forward(self, signal: Tensor) -> Tensor:
        found = F.relu(self.norm1(self.conv1(signal)))
        found = F.relu(self.norm2(self.conv2(found)))
        return F.relu(self.downsample(signal) + F.relu(self.norm3(self.conv3(found))))


def _halved(channels: int, width: int, stride: int, norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride), norm(width)) if stride > 1 else nn.Identity()


class Update(nn.Module):
    """From state, context, correlations and flow to a new state and a change of the flow."""

    def __init__(self, size: RaftSize, levels: int) -> None:
        super().__init__()
        self.encoder = _Motion(size, levels * (2 * size.radius + 1) ** 2)
        self.gru = _Gates(size)
        self.flow_head = _Head(size)
        if size.upsampled:
            rectified: list[nn.Module] = [nn.Conv2d(size.hidden, size.upsampled, 3, 1, 1), nn.ReLU()]
            self.mask = nn.Sequential(*rectified, nn.Conv2d(size.upsampled, 8 * 8 * 9, 1))

    def forward(
        self,
        state: Float[Tensor, "pair hidden row column"],
        context: Float[Tensor, "pair context row column"],
        correlation: Float[Tensor, "pair window row column"],
        flow: CoarseFlow,
    ) -> tuple[Float[Tensor, "pair hidden row column"], CoarseFlow]:
        """The new state, and what is added to the flow."""
        motion = self.encoder(correlation, flow)
        state = self.gru(state, torch.cat((context, motion), 1))
        return state, self.flow_head(state)


class _Motion(nn.Module):
    def __init__(self, size: RaftSize, planes: int) -> None:
        super().__init__()
        first, *others = size.correlation
        self.convc1 = nn.Conv2d(planes, first, 1)
        self.convc2 = nn.Conv2d(first, others[0], 3, 1, 1) if others else nn.Identity()
        self.convf1 = nn.Conv2d(2, size.flow[0], 7, 1, 3)
        self.convf2 = nn.Conv2d(size.flow[0], size.flow[1], 3, 1, 1)
        self.conv = nn.Conv2d(size.correlation[-1] + size.flow[1], size.motion, 3, 1, 1)

    def forward(self, correlation: Tensor, flow: Tensor) -> Tensor:
        seen = F.relu(self.convc2(F.relu(self.convc1(correlation))))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow))))
        return torch.cat((F.relu(self.conv(torch.cat((seen, moved), 1))), flow), 1)


class _Gates(nn.Module):
    """Gated recurrent updates of the state: one, or one along rows and one along columns."""

    def __init__(self, size: RaftSize) -> None:
        super().__init__()
        self._suffixes = [suffix for suffix, _ in size.gates]
        channels = size.hidden + size.context + size.motion + 2
        for suffix, kernel in size.gates:
            margin = kernel[0] // 2, kernel[1] // 2
            for gate in "zrq":
                self.add_module(f"conv{gate}{suffix}", nn.Conv2d(channels, size.hidden, kernel, 1, margin))

    def forward(self, state: Tensor, told: Tensor) -> Tensor:
        for suffix in self._suffixes:
            update, reset, fresh = (self.get_submodule(f"conv{gate}{suffix}") for gate in "zrq")
            both = torch.cat((state, told), 1)
            share, kept = update(both).sigmoid(), reset(both).sigmoid()
            state = (1 - share) * state + share * fresh(torch.cat((kept * state, told), 1)).tanh()
        return state


class _Head(nn.Module):
    def __init__(self, size: RaftSize) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(size.hidden, size.head, 3, 1, 1)
        self.conv2 = nn.Conv2d(size.head, 2, 3, 1, 1)

    def forward(self, state: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(state)))


def _unnormalised(channels: int) -> nn.Module:
    return nn.Identity()


LARGE = RaftSize(
    block=_Residual,
    widths=(64, 64, 96, 128),
    features=256,
    context_norm=nn.BatchNorm2d,
    hidden=128,
    context=128,
    radius=4,
    correlation=(256, 192),
    flow=(128, 64),
    motion=126,
    gates=(("1", (1, 5)), ("2", (5, 1))),
    head=256,
    upsampled=256,
)
SMALL = RaftSize(
    block=_Bottleneck,
    widths=(32, 32, 64, 96),
    features=128,
    context_norm=_unnormalised,
    hidden=96,
    context=64,
    radius=3,
    correlation=(96,),
    flow=(64, 32),
    motion=80,
    gates=(("", (3, 3)),),
    head=128,
    upsampled=0,
)
