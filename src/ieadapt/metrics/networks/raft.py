"""RAFT: optical flow by a network that looks up how alike all pairs of positions of two pictures are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ieadapt.metrics.flow import Flow, Pictures
from ieadapt.metrics.metric import Frames
from ieadapt.metrics.weights import UserWeights, WeightSet, read_state, reading

RAFT = UserWeights((WeightSet("raft", "RAFT's weights", "the file raft-things.pth of princeton-vl/RAFT"),))
ITERATIONS = 20
LEVELS, CELL = 4, 8

Volume = Float[Tensor, "position 1 _ _"]
CoarseFlow = Float[Tensor, "pair vector row column"]
Norm = Callable[[int], nn.Module]


@dataclass(frozen=True)
class RaftSize:
    """The two published sizes of RAFT; by default the large one.

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

    kernels: tuple[int, ...] = (3, 3)
    narrowing: int = 1
    widths: tuple[int, int, int, int] = (64, 64, 96, 128)
    features: int = 256
    context_norm: Norm = nn.BatchNorm2d
    hidden: int = 128
    context: int = 128
    radius: int = 4
    correlation: tuple[int, ...] = (256, 192)
    flow: tuple[int, int] = (128, 64)
    motion: int = 126
    gates: tuple[tuple[str, tuple[int, int]], ...] = (("1", (1, 5)), ("2", (5, 1)))
    upsampled: int = 256


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


LARGE = RaftSize()
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


def raft_flow(frames: Frames, weights: Path) -> Flow:
    """Displacement of every pixel of a frame until the next frame, by RAFT after 20 updates.

    Args:
        frames: a clip in [0, 1], at least 128x128.
        weights: large or small, see `docs/metrics.md`.

    Returns:
        (frame - 1, 2, height, width), in pixels: right, then down.

    Raises:
        FailureError: the weights cannot be read, or are of another network.

    Source: Teed and Deng, RAFT: Recurrent all-pairs field transforms for optical flow, ECCV 2020.
    """
    height, width = frames.shape[-2:]
    top, left = (-height % CELL) // 2, (-width % CELL) // 2
    return padded_flow(frames, weights)[..., top : top + height, left : left + width]


@torch.no_grad()
def padded_flow(frames: Frames, weights: Path) -> Float[Tensor, "pair vector padded_height padded_width"]:
    """As `raft_flow`, with the margins that fill the sides up to multiples of 8; they repeat the border."""
    down, across = (-length % CELL for length in frames.shape[-2:])
    margins = (across // 2, across - across // 2, down // 2, down - down // 2)
    pictures = 2 * F.pad(frames, margins, mode="replicate") - 1
    network = _network(weights)
    return torch.cat([network(first[None], second[None]) for first, second in pairwise(pictures)])


class Raft(nn.Module):
    """The network; names of its weights as published by princeton-vl."""

    def __init__(self, size: RaftSize = LARGE) -> None:
        super().__init__()
        self.size = size
        self.fnet = Encoder(size, size.features, nn.InstanceNorm2d)
        self.cnet = Encoder(size, size.hidden + size.context, size.context_norm)
        self.update_block = Update(size, LEVELS)

    def forward(self, first: Pictures, second: Pictures, iterations: int = ITERATIONS) -> Flow:
        """Flow from the first pictures to the second, in pixels; pictures in [-1, 1], sides multiples of 8."""
        volumes = correlation_pyramid(*self.fnet(torch.cat((first, second))).chunk(2))
        state, context = self.cnet(first).split([self.size.hidden, self.size.context], dim=1)
        state, context = state.tanh(), context.relu()
        rows, columns = state.shape[-2:]
        right, down = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy")
        positions = torch.stack((right, down)).to(state)[None].expand(len(first), -1, -1, -1)
        flow = torch.zeros_like(positions)
        for _ in range(iterations):
            seen = look_up(volumes, positions + flow, self.size.radius)
            state, change = self.update_block(state, context, seen, flow)
            flow = flow + change
        if not self.size.upsampled:
            return CELL * F.interpolate(flow, scale_factor=CELL, mode="bilinear", align_corners=True)
        return upsample_convex(flow, 0.25 * self.update_block.mask(state))


def correlation_pyramid(
    first: Float[Tensor, "pair feature row column"], second: Float[Tensor, "pair feature row column"]
) -> list[Volume]:
    """How alike every position of the first is to every one of the second, and to ever larger squares of positions.

    Returns:
        Per level (position of the first, 1, row, column): scaled dot products with the second's features, which are
        averaged over squares of 1, 2, 4 and 8 positions.
    """
    scale = first.shape[1] ** 0.5
    volume = torch.einsum("pfij,pfkl->pijkl", first, second) / scale
    levels = [rearrange(volume, "pair row column y x -> (pair row column) 1 y x")]
    for _ in range(LEVELS - 1):
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def look_up(volumes: Sequence[Volume], positions: CoarseFlow, radius: int) -> Float[Tensor, "pair window row column"]:
    """The correlations in a square window around a position, at every level, between positions and beyond the border 0.

    Args:
        volumes: of `correlation_pyramid`.
        positions: where each position of the first is looked for in the second: right, then down.
        radius: of the window, in positions of the level.

    Returns:
        Per position the windows level by level, each column by column as the published weights want them.
    """
    pairs, _, rows, columns = positions.shape
    reach = torch.arange(-radius, radius + 1, dtype=positions.dtype)
    offsets = torch.stack(torch.meshgrid(reach, reach, indexing="ij"), dim=-1)
    centres = rearrange(positions, "pair vector row column -> (pair row column) 1 1 vector")
    windows = []
    for level, volume in enumerate(volumes):
        last = torch.tensor(volume.shape[:1:-1]) - 1
        grid = 2 * (centres / 2**level + offsets) / last - 1
        window = F.grid_sample(volume, grid, align_corners=True)
        shape = {"pair": pairs, "row": rows, "column": columns}
        windows.append(rearrange(window, "(pair row column) 1 x y -> pair (x y) row column", **shape))
    return torch.cat(windows, dim=1)


def upsample_convex(flow: CoarseFlow, mask: Float[Tensor, "pair weight row column"]) -> Flow:
    """A flow eight times as large: each pixel a weighted mean of the nine positions around it.

    Args:
        flow: in positions.
        mask: logits of the weights, for 9 positions x 8 rows x 8 columns of pixels.
    """
    rows, columns = flow.shape[-2:]
    weights = rearrange(mask, "pair (near y x) row column -> pair 1 near y x row column", near=9, y=CELL).softmax(2)
    around = F.unfold(CELL * flow, 3, padding=1)
    values = rearrange(
        around, "pair (v near) (row column) -> pair v near 1 1 row column", v=2, row=rows, column=columns
    )
    return rearrange((weights * values).sum(2), "pair v y x row column -> pair v (row y) (column x)")


@lru_cache(maxsize=2)
def _network(path: Path) -> Raft:
    expected = "those of RAFT: princeton-vl's, large or small, or torchvision's raft_large"
    with reading("the given weights", path, expected):
        state = published_names(read_state(path))
        network = Raft(LARGE if any(name.startswith("update_block.mask.") for name in state) else SMALL)
        network.load_state_dict(state)
    return network.eval().requires_grad_(requires_grad=False)


_TORCHVISION = (
    (r"^feature_encoder\.", "fnet."),
    (r"^context_encoder\.", "cnet."),
    (r"^mask_predictor\.convrelu\.0\.", "update_block.mask.0."),
    (r"^mask_predictor\.conv\.", "update_block.mask.2."),
    (r"net\.convnormrelu\.0\.", "net.conv1."),
    (r"net\.convnormrelu\.1\.", "net.norm1."),
    (r"net\.conv\.", "net.conv2."),
    (r"\.convnormrelu(\d)\.0\.", r".conv\1."),
    (r"\.convnormrelu(\d)\.1\.", r".norm\1."),
    (r"\.motion_encoder\.conv\.0\.", ".encoder.conv."),
    (r"\.motion_encoder\.conv(corr|flow)(\d)\.0\.", lambda match: f".encoder.conv{match[1][0]}{match[2]}."),
    (r"\.recurrent_block\.convgru(\d)\.conv([zrq])\.", r".gru.conv\2\1."),
)
_TWICE = re.compile(r"cnet\.layer\d\.0\.norm3\.(?:weight|bias|running|num)\S*")
"""Published a second time as part of `downsample`."""


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under princeton-vl's names, without the prefix of a parallel run; torchvision's names are translated.

    Example:
        >>> list(published_names({"module.fnet.conv1.bias": torch.zeros(1)}))
        ['fnet.conv1.bias']
        >>> list(published_names({"update_block.motion_encoder.convcorr1.0.bias": torch.zeros(1)}))
        ['update_block.encoder.convc1.bias']
    """
    renamed = {}
    for published, value in state.items():
        name = published.removeprefix("module.")
        for theirs, ours in _TORCHVISION:
            name = re.sub(theirs, ours, name)
        if not _TWICE.fullmatch(name):
            renamed[name] = value
    return renamed
