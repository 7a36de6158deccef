"""RAFT: optical flow by a network that looks up how alike all pairs of positions of two pictures are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from ieadapt.metrics.networks.raft_layers import LARGE, SMALL, CoarseFlow, Encoder, RaftSize, Update
from ieadapt.metrics.weights import UserWeights, WeightSet, read_state, reading

RAFT = UserWeights((WeightSet("raft", "RAFT's weights", "the file raft-things.pth of princeton-vl/RAFT"),))
ITERATIONS = 20
LEVELS, CELL = 4, 8

Volume = Float[Tensor, "position 1 _ _"]


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
