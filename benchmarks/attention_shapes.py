"""The attentions of real models whose speed is measured, and the tile sizes that are tried for each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ieadapt.functional import VideoTokens
from ieadapt.functional.kernels.launch import Tiling


@dataclass(frozen=True)
class Shape:
    """One attention of a real model: batch, heads, tokens, head_dim, and its video tokens where it is joint."""

    name: str
    batch: int
    heads: int
    tokens: int
    dim: int
    video: VideoTokens | None = None
    tilings: tuple[Tiling, ...] = ()

    @property
    def size(self) -> str:
        """The numbers in one word."""
        return "x".join(str(part) for part in (self.batch, self.heads, self.tokens, self.dim))


NARROW = (
    Tiling(128, 64, 8, 3, 128),
    Tiling(128, 64, 8, 2, 128),
    Tiling(128, 64, 8, 4, 128),
    Tiling(128, 32, 8, 4, 128),
    Tiling(128, 128, 8, 2),
    Tiling(128, 128, 8, 3),
    Tiling(64, 64, 4, 3, 168),
    Tiling(64, 64, 4, 4, 128),
    Tiling(64, 128, 4, 2),
    Tiling(128, 64, 4, 3),
    Tiling(256, 64, 8, 3),
)
"""Tile sizes tried where head_dim is at most 64."""
WIDE = (
    Tiling(128, 64, 8, 2),
    Tiling(128, 64, 8, 3),
    Tiling(128, 128, 8, 2),
    Tiling(128, 32, 8, 4),
    Tiling(64, 64, 4, 2),
    Tiling(64, 128, 4, 2),
    Tiling(64, 64, 4, 3),
)
"""Tile sizes tried where head_dim is 128."""

WHOLE = (
    Tiling(64, 64, 4, 1),
    Tiling(64, 64, 2, 1),
    Tiling(64, 64, 8, 1),
    Tiling(32, 32, 1, 1),
    Tiling(32, 32, 2, 1),
    Tiling(16, 16, 1, 1),
    Tiling(128, 128, 4, 1),
    Tiling(128, 128, 8, 1),
)
"""Tile sizes tried where whole sequences share a tile; only rows and warps matter."""

SPECIALISED = (Tiling(128, 128, 12, 2), Tiling(128, 128, 12, 3), Tiling(128, 64, 12, 4))
"""Tile sizes tried with specialised warps, which are twelve and have their registers fixed."""

SHAPES = (
    Shape("CogVideoX-5B, 49 frames 480x720", 1, 48, 17776, 64, VideoTokens(226, 13, 1350), NARROW),
    Shape("CogVideoX-5B, not split", 1, 48, 17776, 64, None, NARROW),
    Shape("Wan2.1-14B, 81 frames 480p", 1, 40, 32760, 128, VideoTokens(0, 21, 1560), WIDE),
    Shape("Wan2.1-14B, not split", 1, 40, 32760, 128, None, WIDE),
    Shape("AnimateDiff spatial, 64x64 latents", 16, 8, 4096, 40, None, NARROW),
    Shape("AnimateDiff temporal, 64x64 latents", 8192, 8, 16, 40, None, WHOLE),
)

REHEARSAL = (
    Shape("joint", 1, 2, 170, 16, VideoTokens(10, 4, 40), (Tiling(64, 32, 4, 2),)),
    Shape("spatial", 1, 2, 400, 40, None, (Tiling(64, 32, 4, 2, 128),)),
    Shape("temporal", 5, 2, 16, 40, None, (Tiling(32, 32, 2, 1),)),
)
"""Shapes small enough for Triton's interpreter."""


def inputs(shape: Shape, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries, keys and values in a model's memory layout; queries differ in size, so that entropies do."""
    generator = torch.Generator(device).manual_seed(0)

    def draw() -> Tensor:
        size = (shape.batch, shape.tokens, shape.heads, shape.dim)
        return torch.randn(size, generator=generator, device=device, dtype=dtype).transpose(1, 2)

    sizes = torch.linspace(0.5, 3.0, shape.tokens, device=device, dtype=dtype)[:, None]
    return draw() * sizes, draw(), draw()
