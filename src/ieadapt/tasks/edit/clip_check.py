"""Whether a clip can be edited by a pipeline: its size, its length, and the memory that it would take."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.models.memory import free_memory, memory_estimate
from ieadapt.models.video_latents import fitting_size, latents_of


def check_clip(
    pipe: DiffusionPipeline, frames: Float[Tensor, "frame channel height width"], rows: int = 4
) -> tuple[int, int, int]:
    """Refuse a clip that the pipeline cannot take, before anything is computed.

    Args:
        pipe: a text-to-video pipeline of a known family.
        frames: the clip, in [0, 1].
        rows: of the denoiser's batch: source and targets, times two with guidance.

    Returns:
        (frames, height, width).

    Raises:
        UsageError: no clip, one frame, colours outside [0, 1], a size that the model's grid does not divide, more
            frames than it has positions for, or more memory than there is.
    """
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise UsageError("not a clip", expected="frames of shape (frame, 3, height, width)", got=tuple(frames.shape))
    count, _, height, width = frames.shape
    if count < 2:
        raise UsageError("a clip needs frames", expected="at least 2", got=count)
    if not torch.isfinite(frames).all() or frames.min() < 0 or frames.max() > 1:
        raise UsageError("colours out of range", expected="finite values in [0, 1]", got=f"up to {frames.max():.4g}")
    fits = fitting_size(pipe, count, height, width)
    if fits != (count, height, width):
        row = latents_of(pipe)
        pixels, longest = row.pixels(pipe), row.longest(pipe)
        raise UsageError(
            "the model cannot take a clip of this size",
            expected=f"height and width in multiples of {pixels}, {row.lengths(pipe)}"
            + (f", at most {longest}" if longest else ""),
            got=f"{count} frames of {width}x{height}",
            where=type(pipe).__name__,
            remedy=f"the nearest size below it is {fits[0]} frames of {fits[2]}x{fits[1]}",
        )
    _refuse_too_large(pipe, count, height, width, rows)
    return count, height, width


def _refuse_too_large(pipe: DiffusionPipeline, frames: int, height: int, width: int, rows: int) -> None:
    needed, free = memory_estimate(pipe, frames, height, width, rows), free_memory(pipe._execution_device)
    if needed > free:
        raise UsageError(
            "the clip is too large for the memory",
            expected=f"at most {free / 2**30:.1f} GiB, which is free on {pipe._execution_device}",
            got=f"about {needed / 2**30:.1f} GiB for {frames} frames of {width}x{height}",
            remedy="use fewer frames or a smaller size",
        )
