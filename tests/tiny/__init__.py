"""Tiny random pipelines of every model family, built in code: offline, seeded, float32.

Example:
    >>> from tests.tiny import build, call_arguments
    >>> pipe = build("wan")
    >>> latents = pipe("a red ball", num_inference_steps=2, output_type="latent", **call_arguments("wan")).frames
    >>> tuple(latents.shape)
    (1, 4, 3, 8, 12)
"""

from __future__ import annotations

from typing import Any

from diffusers import DiffusionPipeline

from tests.tiny import animatediff, cogvideox, hunyuanvideo, ltx, mochi, modelscope, wan

_MODULES = {
    "animatediff": animatediff,
    "cogvideox": cogvideox,
    "wan": wan,
    "hunyuanvideo": hunyuanvideo,
    "ltx": ltx,
    "mochi": mochi,
    "modelscope": modelscope,
}
FAMILIES: tuple[str, ...] = tuple(_MODULES)


def build(family: str, seed: int = 0) -> DiffusionPipeline:
    """Return the tiny pipeline of a family, with weights that depend only on the seed and no progress bar."""
    pipe = _MODULES[family].build(seed)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call_arguments(family: str) -> dict[str, Any]:
    """Return the arguments of the smallest sensible run: at least 3 latent frames, a non-square grid."""
    return dict(_MODULES[family].CALL)
