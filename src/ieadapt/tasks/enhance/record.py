"""What an enhancement did: the sites, the passes, the blocks that were replayed, the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ieadapt.attention import AttentionSite, Clock, DenoiserCall, Prefix
from ieadapt.errors import FailureError, UsageError
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.plan import Planner


@dataclass
class Enhancement:
    """An open enhancement: what it changes, and what it has cost so far.

    Attributes:
        passes: calls of the denoiser that the pipeline made.
        weak_passes: extra, weak calls.
        changed_steps: calls of the pipeline in which something was changed.
        replays: what the weak passes replay, one per denoiser with changed sites.
        weak_clock: time of the weak passes.
    """

    _planner: Planner = field(repr=False)
    passes: int = 0
    weak_passes: int = 0
    changed_steps: int = 0
    replays: list[Prefix] = field(default_factory=list, repr=False)
    weak_clock: Clock | None = field(default=None, repr=False)

    @property
    def sites(self) -> tuple[AttentionSite, ...]:
        """The changed sites, by the latest plan; empty while they are still measured."""
        return self._planner.latest.sites if self._planner.latest else ()

    @property
    def heads(self) -> Mapping[str, tuple[int, ...]]:
        """By site name, the changed heads; empty where all heads are."""
        return self._planner.latest.heads if self._planner.latest else {}

    @property
    def sharpened(self) -> tuple[str, ...]:
        """Names of the sites whose maps are sharpened."""
        return tuple(self._planner.latest.sharpened) if self._planner.latest else ()

    @property
    def blocks_replayed(self) -> int:
        """Top-level blocks that weak passes took over from the pass before."""
        return sum(prefix.replayed for prefix in self.replays)

    @property
    def blocks_computed(self) -> int:
        """Top-level blocks that weak passes computed."""
        return sum(prefix.computed for prefix in self.replays)

    @property
    def weak_seconds(self) -> float:
        """Time of the weak passes."""
        return self.weak_clock.seconds if self.weak_clock else 0.0

    @property
    def seconds_saved(self) -> float:
        """Time that the replayed blocks took in the full passes, in proportion to the rows of the weak passes."""
        return sum((prefix.saved.seconds for prefix in self.replays), 0.0)

    def as_dict(self) -> dict[str, Any]:
        """For a run's record."""
        return {
            "sites": [site.name for site in self.sites],
            "heads": {name: list(heads) for name, heads in self.heads.items()},
            "sharpened": list(self.sharpened),
            "passes": self.passes,
            "weak_passes": self.weak_passes,
            "blocks_replayed": self.blocks_replayed,
            "blocks_computed": self.blocks_computed,
            "weak_seconds": round(self.weak_seconds, 3),
            "seconds_saved": round(self.seconds_saved, 3),
        }

    def require_used(self, config: EnhanceConfig) -> None:
        """Refuse a block in which nothing was enhanced.

        Raises:
            FailureError: that is so.
        """
        if not self.changed_steps:
            first = f", after {config.online_steps} measured steps" if config.online_steps else ""
            raise FailureError(
                "no step was enhanced",
                got=f"window {config.start}..{config.stop}{first}",
                remedy="call the pipeline inside the block, with enough steps for the window",
            )


class Watch:
    """Looks at every prediction: counts passes, and refuses what would go wrong later.

    Args:
        told: where it counts.
        config: what is asked.
        size: frames, rows and columns of tokens that the profile was measured on, or None.
    """

    def __init__(self, told: Enhancement, config: EnhanceConfig, size: Sequence[int] | None) -> None:
        self._told, self._config, self._size = told, config, size

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> Tensor | None:
        """Look at one call of the denoiser."""
        self._told.passes += 1
        if call.steps is not None:
            _ = self._config.factors.factors(call.steps)
        if self._size is not None and call.grid is not None:
            self._require_size([call.grid.frames, *call.grid.resolutions[0]])
        return None

    def _require_size(self, running: list[int]) -> None:
        if list(self._size or ()) != running:
            raise UsageError(
                "the profile was measured at another size",
                expected=_size(running),
                got=_size(self._size or ()),
                remedy="measure at this size, or force the run (--force)",
            )


def _size(grid: Sequence[int]) -> str:
    frames, rows, columns = grid
    return f"{frames} frames of {rows} x {columns} tokens"


def require_finite(prediction: Tensor, call: DenoiserCall) -> None:
    """Refuse a prediction that was not finite before anything was added to it.

    Raises:
        FailureError: with the step, and the sites that were changed in this pass.
    """
    if not torch.isfinite(prediction).all():
        changed = ", ".join(dict.fromkeys(call.changed_by))
        raise FailureError(
            "the denoiser's prediction is not finite",
            where=f"step {call.step}" + (f", changed at {changed}" if changed else ", before anything was changed"),
            remedy="use float32 or bfloat16 instead of float16",
        )
