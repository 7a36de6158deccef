"""The number and size of frames that a model makes by itself."""

from __future__ import annotations

import inspect
from typing import Any

from ieadapt.attention import denoisers_of
from ieadapt.errors import UsageError

_CONFIGURED = {
    "num_frames": ("sample_frames",),
    "height": ("sample_height", "sample_size"),
    "width": ("sample_width", "sample_size"),
}
"""Where a denoiser's config says it, in latents; frames are frames."""


def own_size(pipe: Any, name: str) -> int:
    """What the pipeline's call would choose for `num_frames`, `height` or `width`.

    Raises:
        UsageError: the model does not say it.

    Example:
        >>> from ieadapt.models import load
        >>> own_size(load("shapes"), "num_frames")
        16
    """
    parameter = inspect.signature(type(pipe).__call__).parameters.get(name)
    for default in (parameter and parameter.default, getattr(pipe, f"default_{name}", None)):
        if isinstance(default, int):
            return default
    config: Any = next(iter(denoisers_of(pipe).values())).config
    latent: int | None = next((config[key] for key in _CONFIGURED[name] if isinstance(config.get(key), int)), None)
    if latent is None:
        raise UsageError(f"the model does not say its own {name}", remedy=f"pass --{name.removeprefix('num_')}")
    scale: Any = getattr(pipe, "vae_scale_factor_spatial", None) or getattr(pipe, "vae_scale_factor", 1)
    return latent if name == "num_frames" else latent * int(scale)
