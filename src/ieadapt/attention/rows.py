"""Row maps: which guidance branch, stream and video each row of a batch belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

Guidance = Literal["uncond", "cond", "weak", "none"]
Stream = Literal["source", "target", "none"]

ALL_GUIDANCE: tuple[Guidance, ...] = ("uncond", "cond", "weak", "none")
ALL_STREAMS: tuple[Stream, ...] = ("source", "target", "none")


@dataclass(frozen=True)
class RowMap:
    """What each row of a denoiser's batch is, and how many rows of an attention call each one spans.

    Attributes:
        guidance: per denoiser row, `uncond`, `cond`, `weak` (an extra perturbed pass) or `none` (no guidance runs).
        stream: per denoiser row, `source` or `target` in an edit, else `none`.
        video: per denoiser row, the index of the video it belongs to, counted within its guidance branch.
        repeats: consecutive rows of the attention call per denoiser row (frames, positions, or 1).

    Example:
        >>> rows = RowMap(("uncond", "cond"), ("none", "none"), (0, 0), repeats=2)
        >>> rows.select(guidance=("cond",)).tolist()
        [2, 3]
    """

    guidance: tuple[Guidance, ...]
    stream: tuple[Stream, ...]
    video: tuple[int, ...]
    repeats: int = 1

    def __len__(self) -> int:
        return len(self.guidance) * self.repeats

    def denoiser_rows(
        self, guidance: tuple[Guidance, ...] = ALL_GUIDANCE, stream: tuple[Stream, ...] = ALL_STREAMS
    ) -> list[int]:
        """Indices of the denoiser rows of these branches and streams."""
        return [
            index
            for index, (branch, name) in enumerate(zip(self.guidance, self.stream, strict=True))
            if branch in guidance and name in stream
        ]

    def select(
        self, guidance: tuple[Guidance, ...] = ALL_GUIDANCE, stream: tuple[Stream, ...] = ALL_STREAMS
    ) -> Int[Tensor, " row"]:
        """Indices of the attention call's rows of these branches and streams."""
        return self.expand(self.denoiser_rows(guidance, stream))

    @classmethod
    def unknown(cls, batch: int) -> RowMap:
        """Rows of which nothing is known."""
        guidance: list[Guidance] = ["none"]
        stream: list[Stream] = ["none"]
        return cls(tuple(guidance * batch), tuple(stream * batch), (0,) * batch)

    def take(self, denoiser_rows: Sequence[int]) -> RowMap:
        """The row map of these denoiser rows alone."""
        return RowMap(
            tuple(self.guidance[row] for row in denoiser_rows),
            tuple(self.stream[row] for row in denoiser_rows),
            tuple(self.video[row] for row in denoiser_rows),
            self.repeats,
        )

    def index(self, denoiser_rows: Sequence[int], device: torch.device) -> slice | Int[Tensor, " row"]:
        """What takes the attention call's rows of these denoiser rows out of a tensor on a device.

        Neighbours are a slice: a view instead of a copy, and no wait for the indices to arrive on the device.

        Example:
            >>> RowMap.unknown(4).index([1, 2], torch.device("cpu"))
            slice(1, 3, None)
        """
        rows = list(denoiser_rows)
        if rows and rows == list(range(rows[0], rows[0] + len(rows))):
            return slice(rows[0] * self.repeats, (rows[-1] + 1) * self.repeats)
        return self.expand(rows).to(device)

    def expand(self, denoiser_rows: Sequence[int]) -> Int[Tensor, " row"]:
        """Indices of the attention call's rows that belong to these denoiser rows."""
        starts = torch.tensor(list(denoiser_rows), dtype=torch.long) * self.repeats
        return (starts[:, None] + torch.arange(self.repeats)).flatten()
