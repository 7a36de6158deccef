"""What a model and a run of it take in memory, estimated before anything is loaded or computed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open

from ieadapt.attention import first_denoiser
from ieadapt.errors import IEAdaptWarning, UsageError
from ieadapt.models.components import weight_files
from ieadapt.models.video_latents import FRAMES_AT_ONCE, run_size, sizes_of

GIB = 2**30
MAPS_AT_ONCE, ACTIVATIONS_AT_ONCE = 6, 16
"""Measured on the bundled model: 177 and 701 MiB at 128x128 and 256x256, where the estimate is 192 and 768."""
CERTAIN = 2
"""The estimate of a run is good within this factor: above the memory it is warned of, above so many times refused."""


def free_memory(device: torch.device) -> int:
    """Bytes that a program can still have on a device.

    Example:
        >>> free_memory(torch.device("cpu")) > 0
        True
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def memory_estimate(pipe: DiffusionPipeline, frames: int, height: int, width: int, rows: int = 4) -> int:
    """Bytes that a run takes at its peak besides the weights: a rough sum, within a factor of about two.

    The peak is the larger of the VAE at full resolution (a few feature maps of its widest fine block; left out where
    it decodes in tiles) and of the denoiser's activations over all its tokens; attention itself needs no map.

    Args:
        pipe: a pipeline of a family in `ieadapt.models.video_latents`.
        frames: of a video.
        height: in pixels.
        width: in pixels.
        rows: of the denoiser's batch.
    """
    denoiser = first_denoiser(pipe)
    row = sizes_of(pipe)
    vae = getattr(pipe, "vae", None)
    decoding = 0
    if vae is not None and not getattr(vae, "use_tiling", False):
        decoded_at_once = min(frames, FRAMES_AT_ONCE) if row.time is None else frames
        decoding = decoded_at_once * height * width * _finest_channels(vae.config) * vae.dtype.itemsize * MAPS_AT_ONCE
    tokens = frames / row.stride(pipe) * (height / row.pixels(pipe)) * (width / row.pixels(pipe))
    activations = rows * tokens * _width(denoiser.config) * denoiser.dtype.itemsize * ACTIVATIONS_AT_ONCE
    return int(max(decoding, activations))


def check_run(pipe: DiffusionPipeline, size: Mapping[str, int | None], rows: int) -> None:
    """Warn of a run that may not fit into the memory, and refuse one that cannot.

    Nothing is said of families without a row in `ieadapt.models.video_latents`, nor of models that do not say their
    own size.

    Args:
        pipe: the pipeline, loaded.
        size: num_frames, height and width; None = the model's own.
        rows: of the denoiser's batch.

    Raises:
        UsageError: the estimate is more than twice what is free.
    """
    try:
        frames, height, width = run_size(pipe, size)
        needed = memory_estimate(pipe, frames, height, width, rows)
    except UsageError:
        return
    free = free_memory(pipe._execution_device)
    if needed <= free:
        return
    facts = {
        "expected": f"at most {free / GIB:.1f} GiB, which is free on {pipe._execution_device}",
        "got": f"about {needed / GIB:.1f} GiB for {rows} rows of {frames} frames of {width}x{height}",
        "remedy": "use fewer frames, a smaller size or a smaller batch, or tiles: pipe.vae.enable_tiling()",
    }
    if needed > CERTAIN * free:
        raise UsageError("the run is too large for the memory", **facts)
    summary = "; ".join(f"{name} {text}" for name, text in facts.items())
    warnings.warn(f"the run may be too large for the memory; {summary}", IEAdaptWarning, stacklevel=3)


def check_weights(folder: Path, device: torch.device, dtype: torch.dtype, spare: int = 0) -> None:
    """Refuse a model whose weights do not fit into the memory, before they are read.

    They are read into the machine's memory first and then go to the device, so they must fit into both.

    Args:
        folder: of the pipeline.
        device: where it will be.
        dtype: in which precision.
        spare: bytes in use now that will be free by then.

    Raises:
        UsageError: they do not; the error names their size.
    """
    needed = weights_size(folder, dtype)
    for holder in dict.fromkeys((torch.device("cpu"), device)):
        free = free_memory(holder) + spare
        if needed > free:
            raise UsageError(
                "the model's weights are too large for the memory",
                expected=f"at most {free / GIB:.1f} GiB, which is free on {holder}",
                got=f"{needed / GIB:.1f} GiB in {str(dtype).removeprefix('torch.')}",
                where=folder,
                remedy="load it in half precision (--dtype bfloat16), or build the pipeline in Python with "
                "enable_model_cpu_offload() or quantised weights and pass it to the functions",
            )


def weights_size(folder: Path, dtype: torch.dtype) -> int:
    """Bytes of a pipeline's weights once they are loaded in a precision; of several variants the one that is read."""
    components = [part for part in sorted(folder.iterdir()) if part.is_dir()]
    return sum(_elements(file) for part in components for file in weight_files(part)[1]) * dtype.itemsize


def _elements(file: Path) -> int:
    """Numbers in a file; none in a damaged one, of which loading says more."""
    try:
        with safe_open(file, framework="pt") as weights:
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    except SafetensorError:
        return 0


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
