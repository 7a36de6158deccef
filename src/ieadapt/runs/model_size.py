"""How many frames of which size a model makes by itself, and which it can take."""

from __future__ import annotations

import inspect
from typing import Any

from diffusers import DiffusionPipeline

from ieadapt.attention import denoisers_of
from ieadapt.errors import UsageError
from ieadapt.methods import GenerationConfig
from ieadapt.models.video_latents import fitting_size
from ieadapt.runs.sources import Frames

_CONFIGURED = {
    "num_frames": ("sample_frames",),
    "height": ("sample_height", "sample_size"),
    "width": ("sample_width", "sample_size"),
}
"""Where a denoiser's config says it, in latents; frames are frames."""


def frames_for(pipe: DiffusionPipeline, generation: GenerationConfig) -> Frames:
    """The number and size of the frames to take: those asked for or the model's own, rounded down to what fits it.

    Raises:
        UsageError: the model does not say its own size, or the size is none that it can take.

    Example:
        >>> from ieadapt.models import load
        >>> frames_for(load("shapes"), GenerationConfig(height=100))
        Frames(number=16, height=96, width=128)
    """
    asked = {name: getattr(generation, name) or _own(pipe, name) for name in ("num_frames", "height", "width")}
    return Frames(*fitting_size(pipe, asked["num_frames"], asked["height"], asked["width"]))


def _own(pipe: Any, name: str) -> int:
    """As the pipeline's call would choose it."""
    default = inspect.signature(type(pipe).__call__).parameters[name].default
    default = default if isinstance(default, int) else getattr(pipe, f"default_{name}", None)
    if isinstance(default, int):
        return default
    config: Any = next(iter(denoisers_of(pipe).values())).config
    latent: int | None = next((config[key] for key in _CONFIGURED[name] if isinstance(config.get(key), int)), None)
    if latent is None:
        raise UsageError(f"the model does not say its own {name}", remedy=f"pass --{name.removeprefix('num_')}")
    scale: Any = getattr(pipe, "vae_scale_factor_spatial", None) or getattr(pipe, "vae_scale_factor", 1)
    return latent if name == "num_frames" else latent * int(scale)
