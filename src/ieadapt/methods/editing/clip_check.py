"""Whether a clip can be edited by a pipeline: its size, its length, and the memory that it would take."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import denoisers_of
from ieadapt.errors import UsageError
from ieadapt.models.video_latents import FRAMES_AT_ONCE, fitting_size, latents_of


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
            got=f"{count} frames of {height}x{width}",
            where=type(pipe).__name__,
            remedy=f"the nearest size below it is {fits[0]} frames of {fits[1]}x{fits[2]}",
        )
    _refuse_too_large(pipe, count, height, width, rows)
    return count, height, width


def memory_estimate(pipe: DiffusionPipeline, frames: int, height: int, width: int, rows: int = 4) -> int:
    """Bytes that an edit takes at its peak besides the weights: a rough sum, within a factor of about two.

    The peak is the larger of the VAE at full resolution (a few feature maps of its widest fine block) and of the
    denoiser's activations over all its tokens; attention itself needs no map.

    Args:
        pipe: the pipeline.
        frames: of the clip.
        height: in pixels.
        width: in pixels.
        rows: of the denoiser's batch.
    """
    denoiser: Any = next(iter(denoisers_of(pipe).values()))
    row = latents_of(pipe)
    decoded_at_once = min(frames, FRAMES_AT_ONCE) if row.time is None else frames
    fine = _finest_channels(pipe.vae.config)
    vae = decoded_at_once * height * width * fine * _bytes(pipe.vae.dtype) * MAPS_AT_ONCE
    tokens = frames / row.stride(pipe) * (height / row.pixels(pipe)) * (width / row.pixels(pipe))
    activations = rows * tokens * _width(denoiser.config) * _bytes(denoiser.dtype) * ACTIVATIONS_AT_ONCE
    return int(max(vae, activations))


MAPS_AT_ONCE, ACTIVATIONS_AT_ONCE = 6, 16
"""Measured on the bundled model: 177 and 701 MiB at 128x128 and 256x256, where this gives 192 and 768."""


def _refuse_too_large(pipe: DiffusionPipeline, frames: int, height: int, width: int, rows: int) -> None:
    needed, free = memory_estimate(pipe, frames, height, width, rows), _free_memory(pipe._execution_device)
    if needed > free:
        raise UsageError(
            "the clip is too large for the memory",
            expected=f"at most {free / 2**30:.1f} GiB, which is free on {pipe._execution_device}",
            got=f"about {needed / 2**30:.1f} GiB for {frames} frames of {height}x{width}",
            remedy="use fewer frames or a smaller size",
        )


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _finest_channels(config: Any) -> int:
    """Channels of the VAE's decoder at full resolution."""
    for name in ("decoder_block_out_channels", "block_out_channels"):
        if config.get(name):
            return int(min(config[name]))
    return int(config.get("base_dim") or 128)


def _width(config: Any) -> int:
    """Channels of the denoiser."""
    if config.get("block_out_channels"):
        return int(max(config["block_out_channels"]))
    return int(config.get("num_attention_heads", 16) * config.get("attention_head_dim", 64))


def _bytes(dtype: torch.dtype) -> int:
    return torch.empty(0, dtype=dtype).element_size()
