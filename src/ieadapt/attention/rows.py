"""Rows and steps: which guidance branch, stream and video a row of a batch belongs to, and when something acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from ieadapt.errors import UsageError

Guidance = Literal["uncond", "cond", "weak", "unknown"]
"""What a row of the batch computes: the unconditional or the conditional prediction, or one of an extra, weak pass.

`unknown` are rows of which a pipeline does not say what they are; only `all` hands them out.
"""

GuidanceChoice = Guidance | Literal["all"] | Sequence[Guidance]
Stream = Literal["source", "target", "none"]


_FORM = "fractions 0 <= start < stop <= 1, as text START:STOP"


def guidance_branches(choice: GuidanceChoice | object) -> tuple[Guidance, ...]:
    """The branches that a choice names; `all` are all but the weak passes.

    Raises:
        UsageError: an unknown branch, or none.

    Example:
        >>> guidance_branches("all")
        ('uncond', 'cond', 'unknown')
    """
    named: Any = ("uncond", "cond", "unknown") if choice == "all" else (choice,) if isinstance(choice, str) else choice
    known = get_args(Guidance)
    if not isinstance(named, Sequence) or not named or any(branch not in known for branch in named):
        raise UsageError(
            "not a choice of guidance", expected=f"{', '.join(known)}, all, or a tuple of branches", got=repr(choice)
        )
    return tuple(named)


@dataclass(frozen=True)
class StepWindow:
    """A part of a denoising run: the steps with start <= step / number of steps < stop.

    Attributes:
        start: fraction of the run at which it begins.
        stop: fraction at which it ends; 1 includes the last step.

    Raises:
        UsageError: unless 0 <= start < stop <= 1.

    Example:
        >>> [step for step in range(4) if StepWindow(0.5).contains(step, 4)]
        [2, 3]
    """

    start: int | float = 0.0
    stop: int | float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.start < self.stop <= 1.0:
            raise UsageError("not a window of steps", expected=_FORM, got=str(self))

    @classmethod
    def of(cls, steps: StepWindow | Sequence[int | float] | str, where: str | None = None) -> StepWindow:
        """Read a window, a pair of fractions, or its text `START:STOP`; `where` is named in the error.

        Raises:
            UsageError: something else.

        Example:
            >>> StepWindow.of("0:0.8")
            StepWindow(start=0.0, stop=0.8)
        """
        if isinstance(steps, StepWindow):
            return steps
        edges: Any = steps.split(":") if isinstance(steps, str) else steps
        try:
            start, stop = (float(edge) for edge in edges)
            return cls(start, stop)
        except (TypeError, ValueError, UsageError):
            raise UsageError("not a window of steps", expected=_FORM, got=repr(steps), where=where) from None

    @property
    def whole(self) -> bool:
        """Whether every step is in it."""
        return (self.start, self.stop) == (0.0, 1.0)

    def contains(self, step: int, steps: int | None) -> bool:
        """Whether a step acts; every step does where their number is not known."""
        return steps is None or self.start <= step / steps < self.stop

    def steps(self, steps: int) -> range:
        """The steps that act in a run of so many.

        Raises:
            UsageError: no step begins inside the window.
        """
        inside = [step for step in range(steps) if self.contains(step, steps)]
        if not inside:
            raise UsageError(
                "no denoising step begins inside the window",
                got=f"window {self} of {steps} steps",
                remedy="take more steps or a wider window",
            )
        return range(inside[0], inside[-1] + 1)

    def after(self, first: int, steps: int, where: str | None = None) -> StepWindow:
        """The same window for a run that leaves out the first of so many steps, and counts from its own beginning.

        Raises:
            UsageError: none of the remaining steps begins inside it.

        Example:
            >>> StepWindow(0.0, 0.75).after(2, 8)
            StepWindow(start=0.0, stop=0.6666666666666666)
        """
        inside, left = self.steps(steps), steps - first
        if inside.stop <= first:
            raise UsageError(
                "no denoising step begins inside the window",
                got=f"window {self} of {steps} steps, of which the first {first} are left out",
                where=where,
                remedy="take a wider window, or begin earlier",
            )
        return StepWindow(max(inside.start - first, 0) / left, (inside.stop - first) / left)

    def __str__(self) -> str:
        return f"{self.start:g}:{self.stop:g}"


@dataclass(frozen=True)
class RowMap:
    """What each row of a denoiser's batch is, and how many rows of an attention call each one spans.

    Attributes:
        guidance: per denoiser row. Without classifier-free guidance all rows are `cond`.
        stream: per denoiser row, `source` or `target` in an edit, else `none`.
        video: per denoiser row, the index of the video it belongs to, counted within its guidance branch.
        repeats: consecutive rows of the attention call per denoiser row (frames, positions, or 1).
        batch: per row, its index in the denoiser's batch; empty where that is its index here.

    Example:
        >>> rows = RowMap(("uncond", "cond"), ("none", "none"), (0, 0), repeats=2)
        >>> rows.denoiser_rows(("cond",)), rows.index([1])
        ([1], slice(2, 4, None))
    """

    guidance: tuple[Guidance, ...]
    stream: tuple[Stream, ...]
    video: tuple[int, ...]
    repeats: int = 1
    batch: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.guidance)

    def denoiser_rows(
        self, guidance: Sequence[Guidance] = get_args(Guidance), stream: Sequence[Stream] = get_args(Stream)
    ) -> list[int]:
        """Indices of the denoiser rows of these branches and streams."""
        named = enumerate(zip(self.guidance, self.stream, strict=True))
        return [index for index, (branch, name) in named if branch in guidance and name in stream]

    def take(self, denoiser_rows: Sequence[int]) -> RowMap:
        """The row map of these denoiser rows alone."""
        return RowMap(
            tuple(self.guidance[row] for row in denoiser_rows),
            tuple(self.stream[row] for row in denoiser_rows),
            tuple(self.video[row] for row in denoiser_rows),
            self.repeats,
            tuple(self.batch[row] if self.batch else row for row in denoiser_rows),
        )

    def index(self, denoiser_rows: Sequence[int], device: torch.device | None = None) -> slice | Int[Tensor, " row"]:
        """What takes the attention call's rows of these denoiser rows out of a tensor.

        Neighbours are a slice: a view instead of a copy, and no wait for the indices to arrive on the device.
        """
        rows = list(denoiser_rows)
        if rows and rows == list(range(rows[0], rows[0] + len(rows))):
            return slice(rows[0] * self.repeats, (rows[-1] + 1) * self.repeats)
        starts = torch.tensor(rows, dtype=torch.long) * self.repeats
        return (starts[:, None] + torch.arange(self.repeats)).flatten().to(device)
