"""Source paths: where the source's latents are at the beginning and at the end of every step of an edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.tasks.edit.noise_path import Latents, NoisePath


@runtime_checkable
class SourcePath(Protocol):
    """Where the source is. Between the end of one step and the beginning of the next it may take another noise."""

    def begin(self, step: int) -> Latents:
        """Latents at the beginning of a step; after the last step, the clean ones."""
        ...

    def end(self, step: int) -> Latents:
        """Latents at the end of a step, with the noise that they began with."""
        ...


@dataclass(frozen=True)
class Recorded:
    """The source on the trajectory that an inversion recorded.

    Attributes:
        trajectory: latents at the beginning of every step from `first`, and the clean ones last.
        first: the step at which it begins.
    """

    trajectory: Float[Tensor, "step ..."]
    first: int

    def begin(self, step: int) -> Latents:
        """The recorded latents."""
        if step < self.first:
            raise UsageError(
                "the inversion begins later than the edit",
                expected=f"a start at step {self.first} or later",
                got=f"step {step}",
                remedy="invert again with the edit's start",
            )
        return self.trajectory[step - self.first][None]

    def end(self, step: int) -> Latents:
        """The recorded latents."""
        return self.begin(step + 1)


@dataclass(frozen=True)
class Noised:
    """The clean latents with noise, the same at every step or a fresh one at each (FlowEdit, arXiv 2412.08629).

    Attributes:
        path: gives the levels.
        clean: the clip's latents.
        seed: of the noise.
        fresh: whether each step draws its own.
    """

    path: NoisePath
    clean: Latents
    seed: int
    fresh: bool

    def begin(self, step: int) -> Latents:
        """The clean latents with the step's noise."""
        if step == len(self.path):
            return self.clean
        return self.path.noised(step, self.clean, self._noise(step))

    def end(self, step: int) -> Latents:
        """The same noise at the level where the step ends."""
        if step == len(self.path) - 1:
            return self.clean
        level = self.path.ends[step]
        return level.signal * self.clean + level.noise * self._noise(step)

    def _noise(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1000 + step if self.fresh else self.seed)
        return torch.randn(self.clean.shape, generator=generator).to(self.clean)


FRESH: Mapping[str, bool] = {"noise-path": False, "sdedit": False, "flowedit": True}
