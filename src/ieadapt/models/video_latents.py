"""Sizes of videos, and from frames to latents in each family's own form: one row of a table per family."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from diffusers import DiffusionPipeline
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import family_of, first_denoiser
from ieadapt.errors import UsageError

FRAMES_AT_ONCE = 16

Pixels = Float[Tensor, "video channel frame height width"]
Latents = Float[Tensor, "video ..."]


@dataclass(frozen=True)
class VideoLatents:
    """How a family's pipeline holds a video.

    Attributes:
        encode: frames in [-1, 1] to latents, as the pipeline's `prepare_latents` gives them; None where that is not
            known, and sizes alone are.
        space: the pipeline's attribute that says by how much its VAE shrinks height and width.
        time: the same for frames; None if the VAE keeps all of them.
        least: height and width must be multiples of this in any case, the pipeline checks it.
        together: how many latent frames the VAE decodes at a time; with 2, an even number has no first frame apart.
        grid: latents as (video, channel, frame, height, width), given (pipeline, latents, size of the clip).
        ungrid: the way back, given (pipeline, latents).
        pictures: what the family's image-to-video pipeline wants for several prompts: `one` picture, or one for `each`.
    """

    encode: Callable[[Any, Pixels], Latents] | None
    space: str
    time: str | None
    least: int
    together: int = 1
    grid: Callable[[Any, Latents, tuple[int, int, int]], Pixels] = lambda pipe, latents, size: latents
    ungrid: Callable[[Any, Pixels], Latents] = lambda pipe, latents: latents
    pictures: Literal["one", "each"] = "each"

    def pixels(self, pipe: Any) -> int:
        """Height and width must be multiples of this."""
        return math.lcm(self.token_pixels(pipe), self.least)

    def token_pixels(self, pipe: Any) -> int:
        """Height and width of a token of the denoiser, in pixels."""
        patch = first_denoiser(pipe).config.get("patch_size", 1)
        return int(getattr(pipe, self.space)) * (patch if isinstance(patch, int) else patch[-1])

    def stride(self, pipe: Any) -> int:
        """Frames per latent frame."""
        return int(getattr(pipe, self.time)) if self.time else 1

    def length(self, pipe: Any, frames: int) -> int:
        """The most frames, not above so many, that come back in the same number."""
        period = self.stride(pipe) * self.together
        whole = frames // period * period
        if self.together > 1 and whole == frames:
            return frames
        return max(frames - 1, 0) // period * period + 1

    def lengths(self, pipe: Any) -> str:
        """The lengths of clips that it takes, in words."""
        period = self.stride(pipe) * self.together
        if period == 1:
            return "any number of frames"
        return ("a multiple or " if self.together > 1 else "") + f"1 more than a multiple of {period} frames"

    def longest(self, pipe: Any) -> int | None:
        """The most frames that the denoiser has positions for, or None."""
        return first_denoiser(pipe).config.get("motion_max_seq_length")


def encode_video(
    pipe: DiffusionPipeline, frames: Float[Tensor, "frame channel height width"]
) -> Float[Tensor, "1 ..."]:
    """The latents of a clip, in the form that the pipeline's `prepare_latents` gives; float32 on the pipeline's device.

    The mode of the encoder's distribution is taken, so equal clips give equal latents.

    Args:
        pipe: a text-to-video pipeline of a known family.
        frames: in [0, 1], of a size that `fitting_size` accepts.

    Raises:
        UsageError: the family is unknown, or its VAE has no encoder.
    """
    row = latents_of(pipe)
    if getattr(pipe.vae, "encoder", None) is None:
        raise UsageError(
            "this pipeline's VAE has no encoder, so a given clip cannot be edited",
            got=type(pipe.vae).__name__,
            where=type(pipe).__name__,
            remedy="load the model's complete VAE",
        )
    video = rearrange(frames, "frame channel height width -> 1 channel frame height width") * 2 - 1
    encode = cast("Callable[[Any, Pixels], Latents]", row.encode)  # `latents_of` gives only rows that have one
    with torch.no_grad():
        return encode(pipe, video.to(pipe._execution_device, pipe.vae.dtype)).float()


def run_size(pipe: Any, requested: Mapping[str, Any]) -> tuple[int, int, int]:
    """(frames, height, width) of a run: what is requested, the model's own where that is None or not said.

    Args:
        pipe: the pipeline.
        requested: `num_frames`, `height`, `width`; other settings are left alone.

    Raises:
        UsageError: the model does not say its own.
    """
    frames, height, width = (requested.get(name) or own_size(pipe, name) for name in ("num_frames", "height", "width"))
    return frames, height, width


def own_size(pipe: Any, name: str) -> int:
    """What the pipeline's call would choose for `num_frames`, `height` or `width`.

    Raises:
        UsageError: the model does not say it.

    Example:
        >>> from ieadapt.models import load
        >>> own_size(load("scenes"), "num_frames")
        16
    """
    parameter = inspect.signature(type(pipe).__call__).parameters.get(name)
    for default in (parameter and parameter.default, getattr(pipe, f"default_{name}", None)):
        if isinstance(default, int):
            return default
    config = first_denoiser(pipe).config  # in latents, but for frames
    keys = ("sample_frames",) if name == "num_frames" else (f"sample_{name}", "sample_size")
    latent: int | None = next((config[key] for key in keys if isinstance(config.get(key), int)), None)
    if latent is None:
        raise UsageError(f"the model does not say its own {name}", remedy=f"pass --{name.removeprefix('num_')}")
    scale: Any = getattr(pipe, "vae_scale_factor_spatial", None) or getattr(pipe, "vae_scale_factor", 1)
    return latent if name == "num_frames" else latent * int(scale)


def fitting_size(pipe: DiffusionPipeline, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """The largest (frames, height, width) not above the given one that the pipeline takes; at least one step of each.

    Raises:
        UsageError: the family is unknown.
    """
    row = latents_of(pipe)
    pixels = row.pixels(pipe)
    down = [max(size // pixels, 1) * pixels for size in (height, width)]
    kept = min(frames, row.longest(pipe) or frames)
    return row.length(pipe, kept), down[0], down[1]


def sizes_of(pipe: DiffusionPipeline) -> VideoLatents:
    """The pipeline's row, of which only what is said of sizes may be used.

    Raises:
        UsageError: the family is unknown.
    """
    return _row(pipe, VIDEO_LATENTS, "sizes of this model family are not known")


def latents_of(pipe: DiffusionPipeline) -> VideoLatents:
    """The pipeline's row, if clips can be encoded.

    Raises:
        UsageError: the family is unknown, or its clips cannot be encoded.
    """
    encoded = {name: row for name, row in VIDEO_LATENTS.items() if row.encode is not None}
    return _row(pipe, encoded, "clips of this model family cannot be encoded")


def _row(pipe: DiffusionPipeline, rows: Mapping[str, VideoLatents], problem: str) -> VideoLatents:
    name = family_of(first_denoiser(pipe)).name
    if name not in rows:
        remedy = "add its row to ieadapt/models/video_latents.py"
        raise UsageError(problem, expected=", ".join(rows), got=name, where=type(pipe).__name__, remedy=remedy)
    return rows[name]


def _mode(vae: Any, pixels: Tensor) -> Tensor:
    return vae.encode(pixels).latent_dist.mode()


def _scaled(pipe: Any, pixels: Tensor) -> Tensor:
    return _mode(pipe.vae, pixels) * pipe.vae.config.scaling_factor


def _images(pipe: Any, video: Tensor) -> Tensor:
    """Frame by frame, as image autoencoders do."""
    stack = rearrange(video, "video channel frame height width -> (video frame) channel height width")
    coded = torch.cat([_scaled(pipe, part) for part in stack.split(FRAMES_AT_ONCE)])
    pattern = "(video frame) channel height width -> video channel frame height width"
    return rearrange(coded, pattern, video=len(video))


def _cogvideox(pipe: Any, video: Tensor) -> Tensor:
    coded = _mode(pipe.vae, video) * pipe.vae_scaling_factor_image
    coded = rearrange(coded, "video channel frame height width -> video frame channel height width")
    extra = -coded.shape[1] % (pipe.transformer.config.patch_size_t or 1)  # CogVideoX 1.5 drops these after decoding
    return torch.cat([coded[:, :1]] * extra + [coded], dim=1)


def _normalised(pipe: Any, video: Tensor) -> Tensor:
    coded, config = _mode(pipe.vae, video), pipe.vae.config
    scale = config.get("scaling_factor", 1.0)  # Wan's VAE has none
    if config.get("latents_mean") is None or config.get("latents_std") is None:
        return coded * scale
    return (coded - _per_channel(config.latents_mean, coded)) * scale / _per_channel(config.latents_std, coded)


def _frames_first(pipe: Any, latents: Tensor, size: Any = None) -> Tensor:
    """Swaps the axes of channels and frames; its own inverse."""
    return latents.transpose(1, 2)


def _ltx(pipe: Any, video: Tensor) -> Tensor:
    vae = pipe.vae
    coded = pipe._normalize_latents(_mode(vae, video), vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    return _ltx_packed(pipe, coded)


def _ltx_grid(pipe: Any, latents: Tensor, size: tuple[int, int, int]) -> Tensor:
    frames = (size[0] - 1) // pipe.vae_temporal_compression_ratio + 1
    height, width = (pixels // pipe.vae_spatial_compression_ratio for pixels in size[1:])
    return pipe._unpack_latents(latents, frames, height, width, *_ltx_patches(pipe))


def _ltx_packed(pipe: Any, latents: Tensor) -> Tensor:
    return pipe._pack_latents(latents, *_ltx_patches(pipe))


def _ltx_patches(pipe: Any) -> tuple[int, int]:
    return pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size


def _per_channel(values: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)


_FACTORS = ("vae_scale_factor_spatial", "vae_scale_factor_temporal")
_RATIOS = ("vae_spatial_compression_ratio", "vae_temporal_compression_ratio")
_WAN_ALIKE = VideoLatents(None, *_FACTORS, 16, pictures="one")

VIDEO_LATENTS: Mapping[str, VideoLatents] = {
    "AnimateDiff": VideoLatents(_images, "vae_scale_factor", None, 8),
    "ModelScope": VideoLatents(_images, "vae_scale_factor", None, 8),
    "CogVideoX": VideoLatents(_cogvideox, *_FACTORS, 8, 2, _frames_first, _frames_first),
    "Wan": replace(_WAN_ALIKE, encode=_normalised),
    "SkyReels V2": replace(_WAN_ALIKE, encode=_normalised),
    "HunyuanVideo": VideoLatents(_scaled, *_FACTORS, 16),
    "LTX": VideoLatents(_ltx, *_RATIOS, 32, 1, _ltx_grid, _ltx_packed),
    "Mochi": VideoLatents(_normalised, "vae_spatial_scale_factor", "vae_temporal_scale_factor", 8),
    "Wan VACE": _WAN_ALIKE,
    "ChronoEdit": _WAN_ALIKE,
    "ConsisID": VideoLatents(None, *_FACTORS, 8),
    "HunyuanVideo 1.5": VideoLatents(None, *_FACTORS, 16),
    "Kandinsky 5": VideoLatents(None, *_FACTORS, 16),
    "Cosmos": VideoLatents(None, *_FACTORS, 16),
    "Allegro": VideoLatents(None, *_FACTORS, 8),
    "EasyAnimate": VideoLatents(None, *_RATIOS, 16),
    "LTX-2": VideoLatents(None, *_RATIOS, 32),
    "SVD": VideoLatents(None, "vae_scale_factor", None, 8),
    "I2VGenXL": VideoLatents(None, "vae_scale_factor", None, 8),
    "Latte": VideoLatents(None, "vae_scale_factor", None, 8),
}
