"""The one model that is in memory: kept from job to job, let go before another one is loaded."""

from __future__ import annotations

import gc

import torch
from diffusers import DiffusionPipeline

from ieadapt.runs.pipelines import Hardware


class ModelShelf:
    """Holds the pipeline that was loaded last; used by the thread of the jobs alone.

    Example:
        >>> shelf = ModelShelf()
        >>> shelf.load(Hardware(), "shapes") is shelf.load(Hardware(), "shapes")
        True
    """

    def __init__(self) -> None:
        self._held: tuple[Hardware, str] | None = None
        self._pipe: DiffusionPipeline | None = None

    def load(self, hardware: Hardware, model: str) -> DiffusionPipeline:
        """The pipeline, from memory if it is the one there.

        Raises:
            UsageError: it cannot be loaded, or the memory will not do for it.
        """
        if self._pipe is not None and self._held == (hardware, model):
            return self._pipe
        self.clear()
        self._pipe, self._held = hardware.load(model), (hardware, model)
        return self._pipe

    def check(self, hardware: Hardware, model: str) -> None:
        """Refuse a model for which the memory will not do, before its job waits in the line.

        Raises:
            UsageError: as `Hardware.check_memory` does.
        """
        if self._held == (hardware, model):
            return
        spare = self._held[0].loaded_size(self._held[1]) if self._held else 0
        hardware.check_memory(model, spare)

    def clear(self) -> None:
        """Let the model go."""
        self._held = self._pipe = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
