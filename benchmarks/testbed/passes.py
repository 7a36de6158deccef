"""What a method costs: passes through the network."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from ieadapt.attention import denoisers_of, family_of


@dataclass
class Passes:
    """Passes so far.

    Attributes:
        rows: rows of latents that went through a denoiser; a video has one per guidance branch and step.
    """

    rows: int = 0

    def note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count one call."""
        arguments = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        self.rows += len(arguments[family_of(module).latents])


@contextmanager
def counted_passes(pipe: DiffusionPipeline) -> Iterator[Passes]:
    """Count the passes inside the block; a pass that is cut short counts whole."""
    passes = Passes()
    with ExitStack() as stack:
        for denoiser in denoisers_of(pipe).values():
            handle = denoiser.register_forward_pre_hook(passes.note, with_kwargs=True)
            stack.callback(handle.remove)
        yield passes
