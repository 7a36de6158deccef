"""Giving the guided prediction back its spread, between the pipeline's guidance and its scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor

from ieadapt.attention.restore import attribute
from ieadapt.errors import UsageError
from ieadapt.functional import rescale_std


class Rescale:
    """Rescales what a pipeline hands to its scheduler in the steps that were shifted.

    Only there the guided prediction exists in every family, whatever the guidance scale was in that step. The term that
    was added is known, so the prediction without it is too.

    Args:
        share: 0 does nothing; 1 gives the shifted prediction the standard deviation of the unshifted one.
    """

    def __init__(self, share: int | float) -> None:
        self._share = share
        self._delta: Tensor | None = None

    def expect(self, delta: Tensor) -> None:
        """The term that the step's prediction will hold, one row per video."""
        self._delta = delta

    @contextmanager
    def installed(self, pipe: DiffusionPipeline) -> Iterator[None]:
        """Stand between the pipeline and its scheduler for the length of the block."""
        if self._share == 0.0:
            yield
            return
        step = pipe.scheduler.step

        def rescaled(model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
            return step(self._rescaled(model_output, pipe), *args, **kwargs)

        with attribute(pipe.scheduler, "step", rescaled):
            yield

    def _rescaled(self, shifted: Tensor, pipe: DiffusionPipeline) -> Tensor:
        if self._delta is None:
            return shifted
        videos = self._delta.shape[0]
        delta, self._delta = _as_scheduled(self._delta, shifted, pipe).to(shifted), None
        of_video, plain = (tensor.unflatten(0, (videos, -1)) for tensor in (shifted, shifted - delta))
        return rescale_std(of_video, plain, self._share).flatten(0, 1)


def _as_scheduled(delta: Tensor, like: Tensor, pipe: DiffusionPipeline) -> Tensor:
    """The term in the form in which the pipeline hands predictions to its scheduler."""
    if delta.shape == like.shape:
        return delta
    frame_by_frame = delta.transpose(1, 2).flatten(0, 1) if delta.ndim == 5 else delta
    if frame_by_frame.shape == like.shape:
        return frame_by_frame
    raise UsageError(
        "this pipeline changes the prediction's form before its scheduler, so that it cannot be rescaled",
        expected=tuple(delta.shape),
        got=tuple(like.shape),
        where=type(pipe).__name__,
        remedy="leave rescale at 0",
    )
