"""RAFT's learned parts: picture encoders and the update of a flow; module names as in the published weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Pictures = Float[Tensor, "picture channel height width"]
CoarseFlow = Float[Tensor, "pair vector row column"]
Norm = Callable[[int], nn.Module]


@dataclass(frozen=True)
class RaftSize:
    """The two published sizes of RAFT.

    Attributes:
        kernels: of the convolutions of a residual block.
        narrowing: by how much the channels inside a residual block are fewer than its output's.
        widths: channels of the stem and of the three stages of an encoder.
        features: channels that are correlated, and those of the layer before the change of the flow.
        context_norm: normalisation in the encoder of the context.
        hidden: channels of the state that is updated.
        context: channels that tell the update what the first picture shows.
        radius: of the window of correlations that is looked up.
        correlation: widths of the layers that read the correlations.
        flow: widths of the layers that read the flow.
        motion: channels in which both are summed up, without the flow itself.
        gates: suffix in the names of the weights -> kernel of one gated update.
        upsampled: channels of the layer before the mask of the convex upsampling; 0 where it is bilinear.
    """

    kernels: tuple[int, ...]
    narrowing: int
    widths: tuple[int, int, int, int]
    features: int
    context_norm: Norm
    hidden: int
    context: int
    radius: int
    correlation: tuple[int, ...]
    flow: tuple[int, int]
    motion: int
    gates: tuple[tuple[str, tuple[int, int]], ...]
    upsampled: int


class Encoder(nn.Module):
    """Pictures to features at an eighth of their size."""

    def __init__(self, size: RaftSize, width: int, norm: Norm) -> None:
        super().__init__()
        stem, *_, last = size.widths
        self.conv1, self.norm1 = nn.Conv2d(3, stem, 7, 2, 3), norm(stem)
        for index, (before, stage) in enumerate(pairwise(size.widths), start=1):
            first = _Residual(size, before, stage, 1 if index == 1 else 2, norm)
            self.add_module(f"layer{index}", nn.Sequential(first, _Residual(size, stage, stage, 1, norm)))
        self.conv2 = nn.Conv2d(last, width, 1)

    def forward(self, pictures: Pictures) -> Float[Tensor, "picture feature row column"]:
        """Pictures in [-1, 1] whose sides are multiples of 8."""
        signal = F.relu(self.norm1(self.conv1(pictures)))
        for index in range(1, 4):
            signal = self.get_submodule(f"layer{index}")(signal)
        return self.conv2(signal)


class _Residual(nn.Module):
    """Convolutions beside the signal itself; the first one of 3x3 halves the resolution where the block does."""

    def __init__(self, size: RaftSize, channels: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self._depth = len(size.kernels)
        inner = [width // size.narrowing] * (self._depth - 1)
        shapes = zip([channels, *inner], [*inner, width], size.kernels, strict=True)
        for index, (before, after, kernel) in enumerate(shapes):
            step = stride if index == size.kernels.index(3) else 1
            self.add_module(f"conv{index + 1}", nn.Conv2d(before, after, kernel, step, kernel // 2))
            self.add_module(f"norm{index + 1}", norm(after))
        shortcut = (nn.Conv2d(channels, width, 1, stride), norm(width)) if stride > 1 else ()
        self.downsample = nn.Sequential(*shortcut)

    def forward(self, signal: Tensor) -> Tensor:
        inner = signal
        for index in range(1, self._depth + 1):
            convolution, norm = (self.get_submodule(f"{name}{index}") for name in ("conv", "norm"))
            inner = F.relu(norm(convolution(inner)))
        return F.relu(self.downsample(signal) + inner)


class Update(nn.Module):
    """From state, context, correlations and flow to a new state and a change of the flow."""

    def __init__(self, size: RaftSize, levels: int) -> None:
        super().__init__()
        self.encoder = _Motion(size, levels * (2 * size.radius + 1) ** 2)
        self.gru = _Gates(size)
        self.flow_head = nn.Sequential()
        self.flow_head.add_module("conv1", nn.Conv2d(size.hidden, size.features, 3, 1, 1))
        self.flow_head.add_module("relu", nn.ReLU())
        self.flow_head.add_module("conv2", nn.Conv2d(size.features, 2, 3, 1, 1))
        if size.upsampled:
            rectified = nn.Conv2d(size.hidden, size.upsampled, 3, 1, 1), nn.ReLU()
            self.mask = nn.Sequential(*rectified, nn.Conv2d(size.upsampled, 8 * 8 * 9, 1))

    def forward(
        self,
        state: Float[Tensor, "pair hidden row column"],
        context: Float[Tensor, "pair context row column"],
        correlation: Float[Tensor, "pair window row column"],
        flow: CoarseFlow,
    ) -> tuple[Float[Tensor, "pair hidden row column"], CoarseFlow]:
        """The new state, and what is added to the flow."""
        state = self.gru(state, torch.cat((context, self.encoder(correlation, flow)), 1))
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
            for gate in "zrq":
                self.add_module(f"conv{gate}{suffix}", nn.Conv2d(channels, size.hidden, kernel, padding="same"))

    def forward(self, state: Tensor, inputs: Tensor) -> Tensor:
        for suffix in self._suffixes:
            update, reset, fresh = (self.get_submodule(f"conv{gate}{suffix}") for gate in "zrq")
            both = torch.cat((state, inputs), 1)
            share, kept = update(both).sigmoid(), reset(both).sigmoid()
            state = (1 - share) * state + share * fresh(torch.cat((kept * state, inputs), 1)).tanh()
        return state


LARGE = RaftSize(
    kernels=(3, 3),
    narrowing=1,
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
    upsampled=256,
)
SMALL = RaftSize(
    kernels=(1, 3, 1),
    narrowing=4,
    widths=(32, 32, 64, 96),
    features=128,
    context_norm=nn.Identity,
    hidden=96,
    context=64,
    radius=3,
    correlation=(96,),
    flow=(64, 32),
    motion=80,
    gates=(("", (3, 3)),),
    upsampled=0,
)
